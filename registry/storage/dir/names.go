package dir

import (
	"maps"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/registry/storage"
)

// An image store knows docker.io/team/app:1 where a registry has the tag 1 in the
// repository team/app. Other hosts are the first part of the repository. The
// repository busybox is docker.io/library/busybox for an image store, as is
// library/busybox: an annotation tells which of the two is meant, and if both
// have the same tag, the former is docker.io/busybox.

const (
	annotationRepository = "io.tare.registry.repository"
	hub                  = "docker.io/"
	// attachedBy and a repository stand where an image store has the repository that
	// an artifact came from: it is no name of one.
	attachedBy = "tare-registry:"
)

// imageName is the name of a repository in an image store, if it is one that
// comes back as the same repository, or with the annotation.
func imageName(repo string) string {
	ref, err := reference.ParseBare(repo)
	if err != nil || ref.Tag != "" || ref.Digest != "" {
		return hub + repo
	}
	if name := ref.Repository(); oneWord(repo) || repositoryOf(name) == repo {
		return name
	}
	return hub + repo
}

func oneWord(repo string) bool { return !strings.Contains(repo, "/") }

// repositoryOf is the repository that a name without tag and digest stands for.
func repositoryOf(name string) string { return strings.TrimPrefix(name, hub) }

func (r repository) taggedName(tag string) string {
	if twin, ok := r.twin(); ok && twin.tags().Get([]byte(tag)) != nil {
		return hub + r.name + ":" + tag
	}
	return imageName(r.name) + ":" + tag
}

func (r repository) digestName(d digest.Digest) string {
	if twin, ok := r.twin(); ok && twin.manifests().Get([]byte(d)) != nil {
		return hub + r.name + "@" + string(d)
	}
	return imageName(r.name) + "@" + string(d)
}

// twin is the other repository that has the same name in an image store.
func (r repository) twin() (repository, bool) {
	if !oneWord(r.name) {
		return repository{}, false
	}
	twin, err := lookRepo(r.tx, repositoryOf(imageName(r.name)))
	return twin, err == nil
}

// annotate says what the name alone does not.
func annotate(r repository, d ocispec.Descriptor) ocispec.Descriptor {
	if oneWord(r.name) {
		d.Annotations = maps.Clone(d.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[annotationRepository] = r.name
	}
	return d
}

// bare is what the registry keeps of a descriptor.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// readName tells which repository and tag an entry of index.json stands for; the
// tag is "" for a name with a digest. An entry that no client could ask for is
// nobody's.
func readName(d ocispec.Descriptor) (repo, tag string, ok bool) {
	name := d.Annotations[content.AnnotationName]
	name, dgst, pinned := strings.Cut(name, "@")
	if pinned && dgst != string(d.Digest) {
		return "", "", false
	}
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		name, tag = name[:at], name[at+1:]
	}
	repo = repositoryOf(name)
	if own := d.Annotations[annotationRepository]; own != "" && oneWord(own) && imageName(own) == name {
		repo = own
	}
	if pinned {
		tag = ""
	} else if !storage.ValidTag(tag) {
		return "", "", false
	}
	if !storage.ValidRepository(repo) {
		return "", "", false
	}
	return repo, tag, true
}

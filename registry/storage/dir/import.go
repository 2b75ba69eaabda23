package dir

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
)

// importIndex takes over what another program has changed in index.json. It reads
// nothing else when that is the one that was written last.
func (s *Storage) importIndex() error {
	path := s.path(ocispec.ImageIndexFile)
	if _, err := os.Lstat(s.path(content.BehindFile)); err == nil {
		s.index.behind = true
	}
	var list []identity
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		list, err = known(tx)
		return err
	})
	if err != nil {
		return err
	}
	there, ok := statIndex(path)
	if !ok { // to be written from what the registry has
		err := s.mark()
		s.index.changing = false
		return err
	}
	if slices.ContainsFunc(list, there.looksLike) {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	there.Digest = digest.FromBytes(data)
	if slices.ContainsFunc(list, func(i identity) bool { return i.Digest == there.Digest }) {
		return s.db.Update(func(tx *bbolt.Tx) error { return setKnown(tx, there) }) // a copy
	}
	if s.index.behind && len(list) > 0 {
		return fault.New(fault.Conflict, "%s was changed by another program before the registry had written its own changes there: remove that file to go on with what the registry has", path)
	}
	var doc ocispec.Index
	if err := json.Unmarshal(data, &doc); err != nil {
		return fault.New(fault.Invalid, "%s is damaged: put back a copy, or remove it to go on with what the registry has (%w)", path, err)
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		i := &importer{s: s, tx: tx, repos: map[string]*wanted{}}
		return errors.Join(i.run(doc.Manifests), setKnown(tx, there))
	})
}

// wanted is what a repository is to have. The one named "" may lack something.
type wanted struct {
	name      string
	tags      map[string]tagged
	manifests map[digest.Digest]record
	roots     map[digest.Digest]bool
}

// importer makes the repositories what index.json says.
type importer struct {
	s       *Storage
	tx      *bbolt.Tx
	repos   map[string]*wanted
	foreign []ocispec.Descriptor
}

func (i *importer) repo(name string) *wanted {
	w := i.repos[name]
	if w == nil {
		w = &wanted{name, map[string]tagged{}, map[digest.Digest]record{}, map[digest.Digest]bool{}}
		i.repos[name] = w
	}
	return w
}

func (i *importer) run(list []ocispec.Descriptor) error {
	var attached []ocispec.Descriptor
	for _, d := range list {
		if err := d.Digest.Validate(); err != nil {
			return fault.New(fault.Invalid, "%s is damaged: %q is not a digest", i.s.path(ocispec.ImageIndexFile), d.Digest)
		}
		if d.Annotations[content.AnnotationAttached] != "" {
			attached = append(attached, d)
		} else if err := i.entry(d); err != nil {
			return err
		}
	}
	for _, d := range attached {
		if err := i.attach(d); err != nil {
			return err
		}
	}
	for name := range i.repos {
		if _, err := makeRepo(i.tx, name); err != nil {
			return err
		}
	}
	var names []string
	for c, k, _ := cursor(i.tx.Bucket(bucketRepos)); k != nil; k, _ = c.Next() {
		names = append(names, string(k[1:]))
	}
	for _, name := range names {
		if err := i.apply(name, i.repo(name)); err != nil {
			return err
		}
	}
	data, err := json.Marshal(i.foreign)
	if err != nil {
		return err
	}
	return i.tx.Bucket(bucketMeta).Put(keyForeign, data)
}

// entry takes a name, or what has none that a registry can serve.
func (i *importer) entry(d ocispec.Descriptor) error {
	repo, tag, ok := readName(d)
	if !ok {
		i.foreign = append(i.foreign, d)
		return i.keep(d)
	}
	w := i.repo(repo)
	err := i.reach(w, content.Bare(d), 0)
	if errors.Is(err, errOdd) {
		i.foreign = append(i.foreign, d)
		return i.keep(d)
	}
	if err != nil {
		return fmt.Errorf("cannot serve %s: %w", d.Annotations[content.AnnotationName], err)
	}
	w.roots[d.Digest] = true
	if tag != "" {
		t := tagged{digest: d.Digest, updated: content.Updated(d)}
		if t.updated.IsZero() {
			t.updated = time.Now()
		}
		plain := content.Bare(d)
		if own := plain.Annotations[annotationRepository]; own == repo {
			plain.Annotations = maps.Clone(plain.Annotations)
			delete(plain.Annotations, annotationRepository)
		}
		if len(plain.Annotations) > 0 || plain.Platform != nil || plain.ArtifactType != "" {
			if t.foreign, err = json.Marshal(plain); err != nil {
				return err
			}
		}
		w.tags[tag] = t
	}
	return nil
}

// attach gives an artifact to the repositories of what it is attached to.
func (i *importer) attach(d ocispec.Descriptor) error {
	to := digest.Digest(d.Annotations[content.AnnotationAttached])
	own, byRegistry := strings.CutPrefix(d.Annotations[content.AnnotationFrom], attachedBy)
	taken := false
	for name, w := range i.repos {
		if name == "" || !w.roots[to] || byRegistry && own != name {
			continue
		}
		err := i.reach(w, content.Bare(d), 0)
		if errors.Is(err, errOdd) {
			continue
		}
		taken = true
		if err != nil {
			return fmt.Errorf("cannot serve what is attached to %s: %w", to, err)
		}
	}
	if taken {
		return nil
	}
	i.foreign = append(i.foreign, d)
	return i.keep(d)
}

// keep keeps what is not served, as far as it is there.
func (i *importer) keep(d ocispec.Descriptor) error {
	err := i.reach(i.repo(""), content.Bare(d), 0)
	if errors.Is(err, errIncomplete) {
		return nil
	}
	return err
}

// maxDepth is how deep indexes in indexes are followed, as image stores do.
const maxDepth = 8

// reach collects the manifest and, of an index, the manifests that are there.
func (i *importer) reach(w *wanted, d ocispec.Descriptor, depth int) error {
	if _, ok := w.manifests[d.Digest]; ok {
		return nil
	}
	// What was pushed as a type is of that type, whatever an index says of it.
	old, pushed, err := i.pushed(w.name, d.Digest)
	if err != nil {
		return err
	}
	if pushed {
		d.MediaType = old.Descriptor.MediaType
	} else if depth > 0 && !content.IsNode(d.MediaType) {
		return nil
	}
	rec, err := i.s.parse(d, w.name != "")
	if err != nil {
		return err
	}
	if pushed {
		rec.Descriptor, rec.Updated = old.Descriptor, old.Updated
	}
	blobs := rec.Blobs
	rec.Blobs = nil
	for _, b := range blobs {
		size, err := i.s.sizeOf(b.Digest)
		if err == nil && size != b.Size {
			err = incomplete(b.Digest)
		}
		if err == nil {
			rec.Blobs = append(rec.Blobs, b)
		} else if w.name != "" || !errors.Is(err, errIncomplete) {
			return err
		}
	}
	w.manifests[d.Digest] = rec
	if depth == maxDepth {
		return nil
	}
	for _, m := range rec.Manifests {
		err := i.reach(w, m, depth+1)
		if errors.Is(err, errOdd) {
			err = i.keep(m)
		}
		if err != nil && !errors.Is(err, errIncomplete) {
			return err
		}
	}
	return nil
}

// pushed finds the manifest that the repository has already.
func (i *importer) pushed(repo string, d digest.Digest) (rec record, ok bool, err error) {
	r, err := lookRepo(i.tx, repo)
	if err != nil {
		return rec, false, nil
	}
	return r.manifest(d)
}

// apply makes the repository what it is wanted to be.
func (i *importer) apply(name string, w *wanted) error {
	r, err := lookRepo(i.tx, name)
	if err != nil {
		return err
	}
	if err := i.dropRest(r, w); err != nil {
		return err
	}
	for _, d := range slices.Sorted(maps.Keys(w.manifests)) {
		rec := w.manifests[d]
		for _, b := range rec.Blobs {
			if err := r.link(b.Digest, b.Size); err != nil {
				return err
			}
		}
		if err := r.addManifest(rec); err != nil {
			return err
		}
	}
	for tag, t := range w.tags {
		if err := r.setTag(tag, t); err != nil {
			return err
		}
	}
	return r.prune()
}

// dropRest removes tags and manifests that are not wanted, and blobs that the
// other program has removed.
func (i *importer) dropRest(r repository, w *wanted) error {
	var tags, manifests, blobs []string
	for c, k, _ := cursor(r.tags()); k != nil; k, _ = c.Next() {
		if _, ok := w.tags[string(k)]; !ok {
			tags = append(tags, string(k))
		}
	}
	for c, k, _ := cursor(r.manifests()); k != nil; k, _ = c.Next() {
		if _, ok := w.manifests[digest.Digest(k)]; !ok {
			manifests = append(manifests, string(k))
		}
	}
	for _, tag := range tags {
		if err := r.tags().Delete([]byte(tag)); err != nil {
			return err
		}
	}
	for _, d := range manifests {
		if _, err := r.dropManifest(digest.Digest(d)); err != nil {
			return err
		}
	}
	for c, k, v := cursor(r.blobs()); k != nil; k, v = c.Next() {
		if blob, _ := readCounted(v); blob.users == 0 && i.s.isLost(digest.Digest(k)) {
			blobs = append(blobs, string(k))
		}
	}
	for _, d := range blobs {
		if err := r.unlink(digest.Digest(d)); err != nil {
			return err
		}
	}
	return nil
}

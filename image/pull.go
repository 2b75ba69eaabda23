package image

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
)

// PullOptions say what to pull, and for whom.
type PullOptions struct {
	All         bool   // all tags of the repository
	Platform    string // "os/arch[/variant]"; "" for this machine's
	Credentials Credentials
	// Target, unless "", is what the tag is known to mean: the registry is not asked.
	Target digest.Digest
}

// Pull fetches the image that ref names from its registry, unpacks what this
// machine runs of it, and gives it the name. Of an index it takes one platform
// with its attestations; the index itself is kept whole. It returns when the
// image survives power loss. progress is called by several goroutines, one
// at a time.
func (t *Transfers) Pull(ctx context.Context, ref string, o PullOptions, progress func(Progress)) error {
	r, err := reference.ParseBare(ref)
	if err != nil {
		return err
	}
	if o.Platform != "" {
		if _, err := platform.Parse(o.Platform); err != nil {
			return err
		}
	}
	repo := t.registries.Repository(r, o.Credentials)
	tags := []string{r.Tag}
	switch {
	case o.All && (r.Tag != "" || r.Digest != ""):
		return fault.New(fault.Invalid, "tag can't be used with --all-tags/-a")
	case o.All:
		if tags, err = repo.Tags(ctx); err != nil {
			return pullError(r, err)
		}
	case r.Digest != "":
		r.Tag = "" // the digest says it all
		tags[0] = r.Digest
	case r.Tag == "":
		tags[0] = "latest"
	}
	for _, tag := range tags {
		named := r
		if r.Digest == "" {
			named.Tag = tag
		}
		if o.Target != "" {
			tag = o.Target.String()
		}
		p := &pull{t: t, s: t.images, repo: repo, ref: named, platform: o.Platform, progress: serial(progress)}
		if err := p.run(ctx, tag); err != nil {
			return err
		}
	}
	return nil
}

// dockerSchema1 begins the types of Docker's first manifests.
const dockerSchema1 = "application/vnd.docker.distribution.manifest.v1+"

// pullError puts Docker's words before what the registry says.
func pullError(r reference.Ref, err error) error {
	switch fault.KindOf(err) {
	case fault.Unauthorized, fault.Forbidden:
		return fault.New(fault.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login': %w", r.FamiliarRepository(), err)
	case fault.NotFound:
		if strings.Contains(strings.ToLower(err.Error()), "name unknown") {
			return fault.New(fault.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login': %w", r.FamiliarRepository(), err)
		}
		return fault.New(fault.NotFound, "manifest for %s not found: %w", r.Familiar(), err)
	}
	return err
}

// pull is the pulling of one name.
type pull struct {
	t        *Transfers
	s        *Service
	repo     *remote.Repository
	ref      reference.Ref
	platform string
	progress func(Progress)

	target    ocispec.Descriptor
	nodes     map[digest.Digest]bool  // manifests and indexes that were seen to
	parsed    int64                   // bytes of them and of the configs
	layers    map[digest.Digest]int64 // their sizes; told of
	fetched   atomic.Bool             // something was not here before
	referrers func() *referrers       // what is about the image, nil before it is being fetched
	describe  *ocispec.Descriptor     // unless nil, no layer is wanted: it becomes the manifest
}

func (p *pull) run(ctx context.Context, tag string) (err error) {
	p.nodes, p.layers = map[digest.Digest]bool{}, map[digest.Digest]int64{}
	done := p.s.content.Attempt()
	defer func() { done(err) }()
	target, err := p.repo.Resolve(ctx, tag)
	if err != nil {
		return pullError(p.ref, err) // as the answer: nothing is in the stream yet
	}
	p.progress(Progress{ID: tag, Tag: true, Status: "Pulling from " + p.ref.Path})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.target = target
	err = p.node(ctx, target, nil, 0)
	if err != nil {
		cancel()
	}
	about := &referrers{p: p}
	if p.referrers != nil {
		about = p.referrers()
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		p.t.giveBack(p.layers)
	}
	if err != nil {
		return err
	}
	moved, err := p.name(target, about)
	if err != nil {
		return err
	}
	p.t.settle()
	p.progress(Progress{Status: "Digest: " + target.Digest.String()})
	if p.fetched.Load() || moved {
		p.progress(Progress{Status: "Status: Downloaded newer image for " + p.ref.Familiar()})
	} else {
		p.progress(Progress{Status: "Status: Image is up to date for " + p.ref.Familiar()})
	}
	p.s.publish("pull", target, p.ref.String())
	return nil
}

// name gives the image its name, with what is about it, and tells whether
// the name pointed elsewhere before.
func (p *pull) name(target ocispec.Descriptor, about *referrers) (moved bool, err error) {
	name := p.ref.String()
	e, ok := p.s.content.Index().Lookup(name)
	moved = !ok || e.Target.Digest != target.Digest
	more, less := about.change()
	if !moved && !p.fetched.Load() && !more && !less {
		return false, nil
	}
	// Not all of it was fetched here: somebody may be loading the same layer.
	if err := p.s.content.SyncContent(append(about.found, target)...); err != nil {
		return false, err
	}
	target.Platform, target.URLs, target.Data = nil, nil, nil
	e = content.Entry{Name: name, Target: target, Updated: time.Now()}
	err = p.s.content.Update(func(ix *content.Index) (*content.Index, error) {
		return about.attach(ix.With(e)), nil
	})
	if err != nil {
		return false, err
	}
	if less {
		p.s.content.Collect() // becomes due when the pull is over
	}
	return moved, p.s.content.Settle(append(about.found, target)...)
}

// node fetches a manifest or an index, and what is wanted of it. said is the
// platform that the index above says it has. Each is seen to once: indexes that
// name the same content over and over would make millions of a few kilobytes.
func (p *pull) node(ctx context.Context, d ocispec.Descriptor, said *ocispec.Platform, depth int) error {
	if depth > catalog.MaxNesting {
		return fault.New(fault.Invalid, "indexes are nested deeper than %d at %s", catalog.MaxNesting, d.Digest)
	}
	if p.nodes[d.Digest] {
		return nil
	}
	p.nodes[d.Digest] = true
	fetched, err := p.document(ctx, d)
	if err != nil {
		return err
	}
	if fetched {
		p.fetched.Store(true)
	}
	n, err := p.s.content.Node(d)
	if err != nil {
		return err
	}
	if p.parsed += n.Size; n.Manifest != nil {
		p.parsed += min(max(n.Manifest.Config.Size, 0), catalog.MaxConfig)
	}
	if len(p.nodes) > catalog.MaxMembers || p.parsed > catalog.MaxParsed {
		return fault.New(fault.Invalid, "image %s has more than %d manifests, or more than %d bytes of them", p.target.Digest, catalog.MaxMembers, catalog.MaxParsed)
	}
	if n.Index == nil {
		return p.manifest(ctx, d, n.Manifest, said)
	}
	chosen, err := p.choose(n.Index)
	if err != nil {
		return err
	}
	if p.describe != nil && len(chosen) > 1 {
		chosen = chosen[:1] // what attests it is about it
	}
	for _, c := range chosen {
		if err := p.node(ctx, c, c.Platform, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// document stores a manifest or an index, unless it is here.
func (p *pull) document(ctx context.Context, d ocispec.Descriptor) (fetched bool, err error) {
	if strings.HasPrefix(d.MediaType, dockerSchema1) {
		return false, fault.New(fault.NotImplemented, "%s is an image of Docker's schema 1, support for which has been removed: build and push it again with a newer builder", p.ref.Familiar())
	}
	if !content.IsNode(d.MediaType) {
		return false, fault.New(fault.NotImplemented, "%s is of the type %q, which is neither a manifest nor an index", p.ref.Familiar(), d.MediaType)
	}
	wrongSize := func(size int64) error {
		return fault.New(fault.Invalid, "manifest %s has %d bytes instead of %d", d.Digest, size, d.Size)
	}
	if size, ok := p.s.content.Size(d.Digest); ok {
		if _, err := p.s.content.Node(d); err == nil && size != d.Size {
			return false, wrongSize(size)
		} else if err == nil {
			return false, nil
		}
	}
	got, data, err := p.repo.Manifest(ctx, d.Digest.String())
	if err != nil {
		return false, pullError(p.ref, err)
	}
	if got.Size != d.Size {
		return false, wrongSize(got.Size)
	}
	return true, p.s.content.Keep(d.Digest, data)
}

// manifest fetches what a manifest names, and unpacks it when it is an image
// that this machine runs, or that was asked for.
func (p *pull) manifest(ctx context.Context, d ocispec.Descriptor, m *ocispec.Manifest, said *ocispec.Platform) error {
	if len(m.Layers) > catalog.MaxLayers {
		return fault.New(fault.Invalid, "image %s has %d layers, more than %d", d.Digest, len(m.Layers), catalog.MaxLayers)
	}
	if m.Config.Digest != "" {
		if err := p.config(ctx, m.Config); err != nil {
			return err
		}
	}
	attestation := d.Annotations[catalog.AnnotationRefType] != ""
	if p.describe != nil {
		if !attestation && p.describe.Digest == "" {
			*p.describe = d
		}
		return nil
	}
	if p.referrers == nil && !attestation {
		p.referrers = p.fetchReferrers(ctx, []ocispec.Descriptor{p.target, d})
	}
	det, err := p.s.Catalog.Detail(d)
	switch {
	case errors.Is(err, catalog.ErrNoImage), err == nil && attestation:
		return p.blobs(ctx, m.Layers)
	case err != nil:
		return err
	}
	if have := platform.Normalize(det.Config.Platform); p.platform != "" && said == nil {
		if want, _ := platform.Parse(p.platform); have.Architecture != "" && !platform.Matches(want, have) {
			return fault.New(fault.NotFound, "image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
				p.ref.Familiar(), platform.Format(have), platform.Format(want))
		}
	}
	return p.unpacked(ctx, m.Layers, det)
}

// config fetches a config, which is small and needed before all else.
func (p *pull) config(ctx context.Context, d ocispec.Descriptor) error {
	if d.Size > catalog.MaxConfig {
		return fault.New(fault.Invalid, "the config %s has %d bytes, more than %d", d.Digest, d.Size, catalog.MaxConfig)
	}
	return p.silently(ctx, d)
}

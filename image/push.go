package image

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
)

// PushOptions say what to push, and for whom.
type PushOptions struct {
	All      bool   // all tags of the repository
	Platform string // "os/arch[/variant]": only its manifest; "" for all that is here
	// Recompress, unless nil, has the layers compressed in one way. What is pushed
	// is then another image, with another ID, of the same files.
	Recompress  *Recompressing
	Credentials Credentials
}

// Pushed is what a push tells programs about a name.
type Pushed struct {
	Tag    string
	Digest string
	Size   int64 // bytes of the manifest
}

// pushedInstead tells programs that of an index whose platforms are not all
// here one manifest was pushed.
type pushedInstead struct {
	ManifestPushedInsteadOfIndex bool               `json:"manifestPushedInsteadOfIndex"`
	OriginalIndex                ocispec.Descriptor `json:"originalIndex"`
	SelectedManifest             ocispec.Descriptor `json:"selectedManifest"`
}

// Push sends the image that ref names, or all tags of the repository, to the
// registry that the name says: what it lacks of the blobs, and then the
// manifests as they are, so that the digest there is the one here, with the
// artifacts that came with it and are about it. progress is
// called by several goroutines, one at a time.
func (t *Transfers) Push(ctx context.Context, ref string, o PushOptions, progress func(Progress)) error {
	r, err := reference.ParseBare(ref)
	if err != nil {
		return err
	}
	if r.Digest != "" {
		return fault.New(fault.Invalid, "cannot push a digest reference")
	}
	if o.All && r.Tag != "" {
		return fault.New(fault.Invalid, "tag can't be used with --all-tags/-a")
	}
	if !o.All && r.Tag == "" {
		r.Tag = "latest"
	}
	defer t.images.content.Hold()()
	if o.Recompress != nil {
		defer t.images.content.Collect() // what was made for this push alone
	}
	entries, err := t.toPush(r)
	if err != nil {
		return err
	}
	p := &push{t: t, s: t.images, repo: t.registries.Repository(r, o.Credentials), ref: r, options: o, progress: serial(progress),
		sent: map[digest.Digest]bool{}}
	p.progress(Progress{Status: "The push refers to repository [" + r.Repository() + "]"})
	for _, e := range entries {
		if err := p.run(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// toPush finds the name, or all tags of a repository.
func (t *Transfers) toPush(r reference.Ref) ([]content.Entry, error) {
	if r.Tag == "" {
		if entries := t.images.Catalog.Tags(r.Repository()); len(entries) > 0 {
			return entries, nil
		}
		return nil, fault.New(fault.NotFound, "An image does not exist locally with the tag: %s", r.FamiliarRepository())
	}
	e, ok := t.images.content.Index().Lookup(r.String())
	if !ok {
		return nil, fault.New(fault.NotFound, "An image does not exist locally with the tag: %s", r.FamiliarRepository())
	}
	return []content.Entry{e}, nil
}

// push is the pushing of one repository's names.
type push struct {
	t        *Transfers
	s        *Service
	repo     *remote.Repository
	ref      reference.Ref
	options  PushOptions
	progress func(Progress)

	mu   sync.Mutex
	sent map[digest.Digest]bool // blobs and manifests that the registry has
}

func (p *push) run(ctx context.Context, e content.Entry) error {
	r, err := reference.ParseBare(e.Name)
	if err != nil {
		return err
	}
	target, err := p.target(e, r)
	if err != nil {
		return err
	}
	if o := p.options.Recompress; o != nil {
		anew := newRecompressor(p.s, *o)
		anew.have = p.have
		p.progress(Progress{Status: "Compressing layers"})
		if target, err = anew.target(ctx, target, 0); err != nil {
			return err
		}
	}
	if err := p.node(ctx, target, r.Tag); err != nil {
		return err
	}
	for _, d := range p.s.content.Index().Attached(e.Target.Digest) {
		if err := p.node(ctx, d, ""); err != nil {
			return fmt.Errorf("%s was pushed, but not what is attached to it: %w", e.Name, err)
		}
	}
	p.progress(Progress{Status: fmt.Sprintf("%s: digest: %s size: %d", r.Tag, target.Digest, target.Size)})
	p.progress(Progress{Aux: Pushed{Tag: r.Tag, Digest: target.Digest.String(), Size: target.Size}})
	p.s.publish("push", target, e.Name)
	return nil
}

// target chooses what to push: all, the platform that was asked for, or, of an
// index that is not whole here, the platform that is.
func (p *push) target(e content.Entry, r reference.Ref) (ocispec.Descriptor, error) {
	target := e.Target
	size, ok := p.s.content.Size(target.Digest)
	if !ok {
		return target, fault.New(fault.NotFound, "content of image %s is missing in the store: pull it again", r.Familiar())
	}
	target.Size = size
	if p.options.Platform != "" {
		m, err := p.s.Catalog.Choose(target, p.options.Platform, r.Familiar())
		if err == nil && !m.Available {
			err = fault.New(fault.NotFound, "content of image %s for platform %s is missing in the store", r.Familiar(), platform.Format(m.Platform))
		}
		return m.Desc, err
	}
	members := p.s.Catalog.Members(target)
	missing := slices.ContainsFunc(members, func(m catalog.Member) bool { return !m.Available && !p.foreign(m) })
	if !missing {
		return target, nil
	}
	whole := slices.DeleteFunc(slices.Clone(members), func(m catalog.Member) bool { return m.Detail == nil || !m.Available })
	if !content.IsIndex(target.MediaType) || len(whole) == 0 {
		return target, fault.New(fault.NotFound, "content of image %s is missing in the store: pull it again", r.Familiar())
	}
	one := catalog.Representative(whole).Desc
	p.progress(Progress{Aux: pushedInstead{true, target, one}})
	return one, nil
}

// foreign tells whether all that is missing of a manifest is what registries do
// not hold.
func (p *push) foreign(m catalog.Member) bool {
	n, err := p.s.content.Node(m.Desc)
	if err != nil {
		return false
	}
	return !slices.ContainsFunc(n.Children(), func(d ocispec.Descriptor) bool {
		_, here := p.s.content.Size(d.Digest)
		return !here && len(d.URLs) == 0
	})
}

// node sends what a manifest or index names, and then itself, by its tag or by
// its digest.
func (p *push) node(ctx context.Context, d ocispec.Descriptor, tag string) error {
	if tag == "" && p.known(d.Digest) {
		return nil
	}
	n, err := p.s.content.Node(d)
	if err != nil {
		return err
	}
	if n.Index != nil {
		for _, c := range n.Index.Manifests {
			if err := p.child(ctx, c); err != nil {
				return err
			}
		}
	} else if err := p.blobs(ctx, n.Manifest); err != nil {
		return err
	}
	data, err := p.s.content.Read(d.Digest, n.Size)
	if err != nil {
		return err
	}
	if tag == "" {
		tag = d.Digest.String()
	}
	d.Size = int64(len(data))
	if err := p.repo.PushManifest(ctx, d, data, tag); err != nil {
		return err
	}
	p.know(d.Digest)
	return nil
}

// child sends one content of an index: a manifest, or else what is kept here of
// unknown type.
func (p *push) child(ctx context.Context, d ocispec.Descriptor) error {
	if content.IsNode(d.MediaType) {
		return p.node(ctx, d, "")
	}
	if _, here := p.s.content.Size(d.Digest); !here {
		return nil
	}
	return p.blob(ctx, d, true)
}

// have tells that the registry has a layer, whether it is here or not.
func (p *push) have(ctx context.Context, d ocispec.Descriptor) bool {
	if p.known(d.Digest) {
		return true
	}
	has, err := p.repo.HasBlob(ctx, d.Digest)
	if err != nil || !has {
		return false
	}
	p.know(d.Digest)
	p.progress(Progress{ID: short(d.Digest.Encoded()), Status: "Layer already exists"})
	return true
}

func (p *push) known(d digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent[d]
}

func (p *push) know(d digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent[d] = true
}

func (p *push) blobs(ctx context.Context, m *ocispec.Manifest) error {
	g, ctx := errgroup.WithContext(ctx)
	started := map[digest.Digest]bool{}
	for _, d := range m.Layers {
		if started[d.Digest] || p.known(d.Digest) {
			continue
		}
		started[d.Digest] = true
		p.progress(Progress{ID: short(d.Digest.Encoded()), Status: "Preparing"})
		g.Go(func() error { return p.blob(ctx, d, true) })
	}
	if d := m.Config; d.Digest != "" && !started[d.Digest] && !p.known(d.Digest) {
		g.Go(func() error { return p.blob(ctx, d, false) })
	}
	return g.Wait()
}

// blob sends one blob unless the registry has it, or can take it from another
// of its repositories.
func (p *push) blob(ctx context.Context, d ocispec.Descriptor, show bool) error {
	tell := func(status string, now, total int64) {
		if show {
			p.progress(Progress{ID: short(d.Digest.Encoded()), Status: status, Current: now, Total: total})
		}
	}
	size, here := p.s.content.Size(d.Digest)
	switch {
	case !here && len(d.URLs) > 0:
		tell("Skipped foreign layer", 0, 0)
		return nil
	case !here:
		return fault.New(fault.NotFound, "content %s is missing in the store: pull the image again", d.Digest)
	}
	d.Size = size
	tokens := *p.t.uploads.Load()
	select {
	case tokens <- struct{}{}:
		defer func() { <-tokens }()
	default:
		tell("Waiting", 0, 0)
		select {
		case tokens <- struct{}{}:
			defer func() { <-tokens }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	status, err := p.upload(ctx, d, tell)
	if err != nil {
		return err
	}
	tell(status, 0, 0) // a step with counts is none that Docker's clients print without a terminal
	p.know(d.Digest)
	return nil
}

// upload returns how the registry came to have the blob.
func (p *push) upload(ctx context.Context, d ocispec.Descriptor, tell func(status string, now, total int64)) (status string, err error) {
	if has, err := p.repo.HasBlob(ctx, d.Digest); err != nil || has {
		return "Layer already exists", err
	}
	if from, ok := p.elsewhere(d.Digest); ok {
		if mounted, err := p.repo.Mount(ctx, d.Digest, from.Path); err != nil || mounted {
			return "Mounted from " + from.Path, err
		}
	}
	tell("Pushing", 0, d.Size)
	last := time.Now()
	open := func(offset int64) (io.ReadCloser, error) {
		f, _, err := p.s.content.Open(d.Digest)
		if err != nil {
			return nil, err
		}
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
	err = p.repo.PushBlob(ctx, d, open, func(done int64) {
		if time.Since(last) >= progressEvery {
			last = time.Now()
			tell("Pushing", done, d.Size)
		}
	})
	return "Pushed", err
}

// elsewhere finds another repository of the registry that may have the blob: one
// of which an image here has it.
func (p *push) elsewhere(d digest.Digest) (reference.Ref, bool) {
	for _, e := range p.s.content.Index().Entries() {
		r, err := reference.ParseBare(e.Name)
		if e.Name == "" || err != nil || r.Domain != p.ref.Domain || r.Path == p.ref.Path {
			continue
		}
		for _, m := range p.s.Catalog.Members(e.Target) {
			n, err := p.s.content.Node(m.Desc)
			if err == nil && slices.ContainsFunc(n.Children(), func(c ocispec.Descriptor) bool { return c.Digest == d }) {
				return r, true
			}
		}
	}
	return reference.Ref{}, false
}

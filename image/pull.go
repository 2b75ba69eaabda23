package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
)

// PullOptions say what to pull, and for whom.
type PullOptions struct {
	All         bool   // all tags of the repository
	Platform    string // "os/arch[/variant]"; "" for this machine's
	Credentials Credentials
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
		if _, err := parsePlatform(o.Platform); err != nil {
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
	nodes     map[digest.Digest]bool // manifests and indexes that were seen to
	parsed    int64                  // bytes of them and of the configs
	layers    map[digest.Digest]bool // told of
	fetched   atomic.Bool            // something was not here before
	referrers func() *referrers      // what is about the image, nil before it is being fetched
}

func (p *pull) run(ctx context.Context, tag string) (err error) {
	p.nodes, p.layers = map[digest.Digest]bool{}, map[digest.Digest]bool{}
	done := p.s.hold()
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
	if depth > maxNesting {
		return fault.New(fault.Invalid, "indexes are nested deeper than %d at %s", maxNesting, d.Digest)
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
		p.parsed += min(max(n.Manifest.Config.Size, 0), maxConfig)
	}
	if len(p.nodes) > maxMembers || p.parsed > maxParsed {
		return fault.New(fault.Invalid, "image %s has more than %d manifests, or more than %d bytes of them", p.target.Digest, maxMembers, maxParsed)
	}
	if n.Index == nil {
		return p.manifest(ctx, d, n.Manifest, said)
	}
	chosen, err := p.choose(n.Index)
	if err != nil {
		return err
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

// choose picks the manifests of an index to fetch: the best of the platform and
// what attests it. An index of no platforms is no image: all of it is fetched.
func (p *pull) choose(index *ocispec.Index) ([]ocispec.Descriptor, error) {
	want := host()
	if p.platform != "" {
		want, _ = parsePlatform(p.platform) // checked before
	}
	best, platforms := -1, []string{}
	for i, d := range index.Manifests {
		if d.Platform == nil || d.Annotations[annotationRefType] != "" {
			continue
		}
		have := normalize(*d.Platform)
		platforms = append(platforms, formatPlatform(have))
		if matches(want, have) && (best < 0 || closer(want, have, normalize(*index.Manifests[best].Platform))) {
			best = i
		}
	}
	if len(platforms) == 0 {
		// What else an index may hold, nobody knows where to find.
		return slices.DeleteFunc(slices.Clone(index.Manifests), func(d ocispec.Descriptor) bool { return !content.IsNode(d.MediaType) }), nil
	}
	if best < 0 {
		slices.Sort(platforms)
		return nil, fault.New(fault.NotFound, "no matching manifest for %s in the manifest list entries: %s has it for %s",
			formatPlatform(want), p.ref.Familiar(), strings.Join(slices.Compact(platforms), ", "))
	}
	chosen := []ocispec.Descriptor{index.Manifests[best]}
	for _, d := range index.Manifests {
		if d.Annotations[annotationRefType] == "attestation-manifest" && d.Annotations[annotationRefDigest] == chosen[0].Digest.String() {
			chosen = append(chosen, d)
		}
	}
	return chosen, nil
}

// closer tells whether a is nearer to the wanted platform than b: an exact
// variant before an elder one, a younger before an older.
func closer(want, a, b ocispec.Platform) bool {
	if a.Variant == want.Variant || b.Variant == want.Variant {
		return a.Variant == want.Variant && b.Variant != want.Variant
	}
	return a.Variant > b.Variant
}

// manifest fetches what a manifest names, and unpacks it when it is an image
// that this machine runs, or that was asked for.
func (p *pull) manifest(ctx context.Context, d ocispec.Descriptor, m *ocispec.Manifest, said *ocispec.Platform) error {
	if len(m.Layers) > maxLayers {
		return fault.New(fault.Invalid, "image %s has %d layers, more than %d", d.Digest, len(m.Layers), maxLayers)
	}
	if m.Config.Digest != "" {
		if err := p.config(ctx, m.Config); err != nil {
			return err
		}
	}
	attestation := d.Annotations[annotationRefType] != ""
	if p.referrers == nil && !attestation {
		p.referrers = p.fetchReferrers(ctx, []ocispec.Descriptor{p.target, d})
	}
	det, err := p.s.detail(d)
	switch {
	case errors.Is(err, errNoImage), err == nil && attestation:
		return p.blobs(ctx, m.Layers)
	case err != nil:
		return err
	}
	if have := normalize(det.config.Platform); p.platform != "" && said == nil {
		if want, _ := parsePlatform(p.platform); have.Architecture != "" && !matches(want, have) {
			return fault.New(fault.NotFound, "image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
				p.ref.Familiar(), formatPlatform(have), formatPlatform(want))
		}
	}
	return p.unpacked(ctx, m.Layers, det)
}

// config fetches a config, which is small and needed before all else.
func (p *pull) config(ctx context.Context, d ocispec.Descriptor) error {
	if d.Size > maxConfig {
		return fault.New(fault.Invalid, "the config %s has %d bytes, more than %d", d.Digest, d.Size, maxConfig)
	}
	return p.silently(ctx, d)
}

// silently fetches a small blob without a word of progress.
func (p *pull) silently(ctx context.Context, d ocispec.Descriptor) error {
	if size, ok := p.s.content.Size(d.Digest); ok && size == d.Size {
		return nil
	}
	return p.tries(ctx, func() (again bool, err error) {
		dl, mine := p.t.downloads.want(d, p.repo)
		defer dl.leave()
		err = dl.wait(ctx)
		return errors.Is(err, errStale) || !mine, err
	})
}

// tries does something again that may end better then.
func (p *pull) tries(ctx context.Context, once func() (again bool, err error)) error {
	for try := 1; ; try++ {
		again, err := once()
		if err == nil || !again || try == 3 || ctx.Err() != nil {
			return err
		}
	}
}

// blobs fetches what is not to be unpacked.
func (p *pull) blobs(ctx context.Context, list []ocispec.Descriptor) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range list {
		p.tell(d, "Pulling fs layer")
		g.Go(func() error { return p.layer(ctx, d, nil) })
	}
	return g.Wait()
}

// tell says the first word of a layer, once: an image may have it twice.
func (p *pull) tell(d ocispec.Descriptor, status string) {
	if !p.layers[d.Digest] {
		p.layers[d.Digest] = true
		p.progress(Progress{ID: short(d.Digest.Encoded()), Status: status})
	}
}

// unpacked fetches the layers of an image and unpacks them while they come.
func (p *pull) unpacked(ctx context.Context, layers []ocispec.Descriptor, det *detail) error {
	for _, d := range layers { // before their bytes come
		if err := checkLayerType(d.MediaType); err != nil {
			return fmt.Errorf("cannot unpack layer %s: %w", d.Digest, err)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	stack := p.s.unpacker.newStack(layers, det.config.RootFS.DiffIDs)
	for i, d := range layers {
		size, here := p.s.content.Size(d.Digest)
		if here && size == d.Size && stack.has(i) {
			p.tell(d, "Already exists")
			continue
		}
		p.tell(d, "Pulling fs layer")
		g.Go(func() error {
			return p.layer(ctx, d, func(open opener) error { return stack.unpack(ctx, i, open) })
		})
	}
	return g.Wait()
}

// layer fetches one blob, and has it unpacked meanwhile when unpack is not
// nil. What an earlier process left and proves to be damaged, or what somebody
// else failed to fetch with his credentials, is tried again.
func (p *pull) layer(ctx context.Context, d ocispec.Descriptor, unpack func(opener) error) error {
	if size, ok := p.s.content.Size(d.Digest); ok && size == d.Size {
		if rotten, err := p.stored(ctx, d, unpack); !rotten {
			return err
		}
	}
	p.fetched.Store(true)
	return p.tries(ctx, func() (bool, error) { return p.transfer(ctx, d, unpack) })
}

// stored unpacks a blob that is here. One that has rotted is to be fetched anew,
// in its place.
func (p *pull) stored(ctx context.Context, d ocispec.Descriptor, unpack func(opener) error) (rotten bool, err error) {
	if unpack == nil {
		return false, nil
	}
	p.progress(Progress{ID: short(d.Digest.Encoded()), Status: "Extracting"})
	err = unpack(p.s.unpacker.stored(d))
	if err == nil {
		p.progress(Progress{ID: short(d.Digest.Encoded()), Status: "Pull complete"})
		return false, nil
	}
	if !errors.Is(err, fault.Invalid) {
		return false, err
	}
	blob, _, e := p.s.content.Open(d.Digest)
	if e != nil {
		return false, err
	}
	defer blob.Close()
	sum := d.Digest.Verifier()
	if _, e := io.Copy(sum, &cancellable{ctx, blob}); e != nil || sum.Verified() {
		return false, err // it is what its author made
	}
	return true, nil
}

// transfer is one try at a layer; again tells whether another one may help.
func (p *pull) transfer(ctx context.Context, d ocispec.Descriptor, unpack func(opener) error) (again bool, err error) {
	dl, mine := p.t.downloads.want(d, p.repo)
	defer dl.leave()
	told := make(chan struct{})
	over := make(chan struct{})
	go func() { defer close(told); p.watch(dl, over) }()
	var unpacking error
	if unpack != nil {
		unpacking = unpack(dl.read)
	}
	err = dl.wait(ctx)
	close(over)
	<-told
	if err != nil {
		return errors.Is(err, errStale) || !mine, err
	}
	if unpacking == nil {
		p.progress(Progress{ID: short(d.Digest.Encoded()), Status: "Pull complete"})
	}
	return false, unpacking
}

// watch tells how a download goes until over is closed.
func (p *pull) watch(dl *download, over <-chan struct{}) {
	id := short(dl.desc.Digest.Encoded())
	select {
	case <-dl.begun:
	case <-over:
		return
	default:
		p.progress(Progress{ID: id, Status: "Waiting"})
		select {
		case <-dl.begun:
		case <-over:
			return
		}
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for last := int64(-1); ; {
		if have := dl.have(); have != last && have < dl.desc.Size {
			last = have
			p.progress(Progress{ID: id, Status: "Downloading", Current: have, Total: dl.desc.Size})
		}
		select {
		case <-tick.C:
			continue
		case <-dl.done:
		case <-over:
		}
		break
	}
	select {
	case <-dl.done:
		if dl.err == nil {
			p.progress(Progress{ID: id, Status: "Download complete"})
			select {
			case <-over:
			default:
				p.progress(Progress{ID: id, Status: "Extracting"})
			}
		}
	default:
	}
}

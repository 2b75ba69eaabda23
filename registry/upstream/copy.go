package upstream

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// copied counts what a sync has brought.
type copied struct {
	images, blobs, failures int
	bytes                   int64
}

func (c *copied) add(o copied) {
	c.images += o.images
	c.blobs += o.blobs
	c.failures += o.failures
	c.bytes += o.bytes
}

// copier copies an image with all that belongs to it, as a push would: blobs,
// then their manifest, then the index that names it, then the tag.
type copier struct {
	s          *Storage
	p          *peer
	sync       Sync
	path, repo string
	log        *slog.Logger

	copied
	changed bool
	seen    map[digest.Digest]bool
}

const (
	maxDepth = 8 // of indexes in indexes, and referrers of referrers
	parallel = 4 // blobs of one image
)

// image copies what a tag points to.
func (c *copier) image(ctx context.Context, tag string) (digest.Digest, error) {
	r, err := c.p.repository(c.path)
	if err != nil {
		return "", err
	}
	d, err := r.Resolve(ctx, tag)
	if err != nil {
		return "", c.p.failed(ctx, err)
	}
	if !storage.ValidDigest(d.Digest) {
		return "", &storage.UpstreamError{Name: c.p.Name, Err: fault.New(fault.Invalid, "the tag %s has a digest that is none", tag)}
	}
	c.seen = map[digest.Digest]bool{}
	m, err := c.manifest(ctx, d.Digest, 0)
	if err != nil {
		return d.Digest, err
	}
	have, err := c.s.Storage.Tag(ctx, c.repo, tag)
	if err == nil && have.Target.Digest == d.Digest || err != nil && !errors.Is(err, fault.NotFound) {
		return d.Digest, err
	}
	c.changed = true
	return d.Digest, c.s.Storage.PutManifest(ctx, c.repo, m, storage.NewTag{Name: tag})
}

// manifest copies one, with what it names and what refers to it.
func (c *copier) manifest(ctx context.Context, d digest.Digest, depth int) (storage.Manifest, error) {
	if depth > maxDepth {
		return storage.Manifest{}, fault.New(fault.Invalid, "%s leads to %s through more than %d others", c.repo, d, maxDepth)
	}
	c.seen[d] = true
	m, err := c.s.whole(ctx, c.repo, d)
	here := err == nil
	if errors.Is(err, fault.NotFound) {
		m, err = c.p.fetch(ctx, c.path, d)
	}
	if err != nil {
		return m, err
	}
	for _, child := range wanted(m.Manifests, c.sync.Platforms) {
		if c.seen[child.Digest] {
			continue
		}
		if _, err := c.manifest(ctx, child.Digest, depth+1); err != nil {
			return m, err
		}
	}
	if !here {
		if err := c.content(ctx, m.Blobs); err != nil {
			return m, err
		}
		c.changed = true
		if err := c.s.Storage.PutManifest(ctx, c.repo, m); err != nil {
			return m, err
		}
	}
	return m, c.referrers(ctx, d, depth)
}

func (c *copier) referrers(ctx context.Context, d digest.Digest, depth int) error {
	if !c.sync.Referrers {
		return nil
	}
	r, err := c.p.repository(c.path)
	if err != nil {
		return err
	}
	list, err := r.Referrers(ctx, d)
	if err != nil {
		return c.p.failed(ctx, err)
	}
	for _, one := range list {
		if c.seen[one.Digest] || !storage.ValidDigest(one.Digest) {
			continue
		}
		if _, err := c.manifest(ctx, one.Digest, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// content copies blobs, each once.
func (c *copier) content(ctx context.Context, list []ocispec.Descriptor) error {
	var blobs, bytes atomic.Int64
	work, all := errgroup.WithContext(ctx)
	work.SetLimit(parallel)
	seen := map[digest.Digest]bool{}
	for _, b := range list {
		if seen[b.Digest] {
			continue
		}
		seen[b.Digest] = true
		work.Go(func() error {
			fetched, err := c.blob(all, b)
			if fetched {
				blobs.Add(1)
				bytes.Add(b.Size)
			}
			return err
		})
	}
	err := work.Wait()
	c.blobs += int(blobs.Load())
	c.bytes += bytes.Load()
	return err
}

// blob brings a blob, if neither this repository nor the cached copy of the
// same one has it.
func (c *copier) blob(ctx context.Context, d ocispec.Descriptor) (fetched bool, err error) {
	have, err := c.s.Storage.Blob(ctx, c.repo, d.Digest)
	if err == nil {
		return false, have.Content.Close()
	}
	if !errors.Is(err, fault.NotFound) {
		return false, err
	}
	if from := c.p.begins() + c.path; c.p.Prefix != "" && storage.ValidRepository(from) {
		if _, err := c.s.Storage.Mount(ctx, c.repo, from, d.Digest); !errors.Is(err, fault.NotFound) {
			return false, err
		}
	}
	if limit := c.s.config.MaxBlob; limit > 0 && d.Size > limit {
		return false, fault.New(fault.Forbidden, "the blob %s has %d bytes, and this registry takes at most %d", d.Digest, d.Size, limit)
	}
	select {
	case c.s.downloads.places <- struct{}{}:
		defer func() { <-c.s.downloads.places }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	c.log.Debug("a blob is fetched", "digest", d.Digest, "bytes", d.Size)
	return true, c.fetch(ctx, d)
}

func (c *copier) fetch(ctx context.Context, d ocispec.Descriptor) error {
	r, err := c.p.repository(c.path)
	if err != nil {
		return err
	}
	body, err := r.Blob(ctx, ocispec.Descriptor{Digest: d.Digest, Size: d.Size}, 0, -1)
	if err != nil {
		return c.p.failed(ctx, err)
	}
	defer body.Close()
	u, err := c.s.Storage.CreateUpload(ctx, c.repo, d.Digest.Algorithm())
	if err != nil {
		return err
	}
	defer u.Close()
	if _, err := u.Append(ctx, body); err != nil {
		return errors.Join(c.p.failed(ctx, err), u.Cancel(context.WithoutCancel(ctx)))
	}
	return u.Commit(ctx, d.Digest)
}

// attested names, in an index of BuildKit's, the image that an attestation is
// about.
const attested = "vnd.docker.reference.digest"

// wanted gives those of an index that are for one of the platforms, and the
// attestations about them.
func wanted(list []ocispec.Descriptor, platforms []string) []ocispec.Descriptor {
	if platforms == nil {
		return list
	}
	named := map[string]bool{}
	for _, d := range list {
		named[string(d.Digest)] = slices.ContainsFunc(platforms, func(text string) bool { return isFor(d.Platform, text) })
	}
	var out []ocispec.Descriptor
	for _, d := range list {
		if named[string(d.Digest)] || named[d.Annotations[attested]] {
			out = append(out, d)
		}
	}
	return out
}

// isFor tells whether a platform is the one of the text, which may leave out the
// variant. What has no platform is for all.
func isFor(p *ocispec.Platform, text string) bool {
	if p == nil {
		return true
	}
	words := strings.SplitN(text, "/", 3)
	return p.OS == words[0] && p.Architecture == words[1] && (len(words) < 3 || p.Variant == words[2])
}

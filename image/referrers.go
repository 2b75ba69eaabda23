package image

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
)

// Limits on what is fetched with an image because it says it is about it.
const (
	maxReferrers     = 100
	maxReferrerBytes = 64 << 20 // of all together
	maxReferrerDepth = 3        // a signature of a list of parts of an image is 2
	// referrersGrace is how long they may take when the image itself is here.
	referrersGrace = 10 * time.Second
)

// referrers fetches the artifacts of a registry whose subject is the image or
// one of its manifests: signatures, lists of parts and the like, which a push
// takes along. They are an extra: what cannot be had is left out.
type referrers struct {
	p     *pull
	found []ocispec.Descriptor
	whole bool // nothing failed: the registry has no more
	seen  map[digest.Digest]bool
	bytes int64
}

// fetchReferrers fetches beside the image, and for no longer than a grace after
// it. The result is to be attached to the image.
func (p *pull) fetchReferrers(ctx context.Context, subjects []ocispec.Descriptor) (result func() *referrers) {
	ctx, cancel := context.WithCancel(ctx)
	r := &referrers{p: p, seen: map[digest.Digest]bool{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, d := range subjects {
			if r.seen[d.Digest] {
				continue
			}
			r.seen[d.Digest] = true
			if err := r.of(ctx, d.Digest, 1); err != nil {
				slog.DebugContext(ctx, "artifacts about an image were not fetched", "image", p.ref.String(), "error", err)
				return
			}
		}
		r.whole = true
	}()
	return func() *referrers {
		defer cancel()
		timer := time.AfterFunc(referrersGrace, cancel)
		defer timer.Stop()
		<-ended
		return r
	}
}

// attach gives the index what the registry has about the image.
func (r *referrers) attach(ix *content.Index) *content.Index {
	return ix.Attach(r.p.target.Digest, r.p.ref.Repository(), r.whole, r.found...)
}

// change tells whether that is more or less than is known.
func (r *referrers) change() (more, less bool) {
	ix := r.p.s.content.Index()
	known, next := ix.Attached(r.p.target.Digest), r.attach(ix).Attached(r.p.target.Digest)
	return lacks(known, next), lacks(next, known)
}

// lacks tells whether something of list is not in known.
func lacks(known, list []ocispec.Descriptor) bool {
	return slices.ContainsFunc(list, func(d ocispec.Descriptor) bool {
		return !slices.ContainsFunc(known, func(k ocispec.Descriptor) bool { return k.Digest == d.Digest })
	})
}

func (r *referrers) of(ctx context.Context, subject digest.Digest, depth int) error {
	list, err := r.p.repo.Referrers(ctx, subject)
	if err != nil || depth > maxReferrerDepth {
		return err
	}
	for _, d := range list {
		if r.seen[d.Digest] || len(r.found) == maxReferrers || !content.IsNode(d.MediaType) || content.IsIndex(d.MediaType) {
			continue
		}
		r.seen[d.Digest] = true
		whole, err := r.artifact(ctx, d, subject)
		if err != nil {
			return err
		}
		if !whole {
			continue
		}
		r.found = append(r.found, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType, Annotations: d.Annotations})
		if err := r.of(ctx, d.Digest, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// artifact fetches one with all its content, unless that would be too much or it
// is about something else.
func (r *referrers) artifact(ctx context.Context, d ocispec.Descriptor, subject digest.Digest) (whole bool, err error) {
	if _, err := r.p.document(ctx, d); err != nil {
		return false, err
	}
	n, err := r.p.s.content.Node(d)
	if err != nil {
		return false, err
	}
	if n.Manifest.Subject == nil || n.Manifest.Subject.Digest != subject {
		return false, nil // whatever the registry says
	}
	left := maxReferrerBytes - r.bytes - n.Size
	for _, c := range n.Children() {
		if c.Size > left { // no sum of theirs, which could overflow
			return false, nil
		}
		left -= c.Size
	}
	if left < 0 {
		return false, nil
	}
	r.bytes = maxReferrerBytes - left
	for _, c := range n.Children() {
		if err := r.p.silently(ctx, c); err != nil {
			return false, err
		}
	}
	return true, nil
}

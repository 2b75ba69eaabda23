package build

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// holder has every blob that somebody names, and knows which of them holds what.
type holder struct {
	Store
	holds map[claim]bool
	asked int
	plain bool // whether the archives of layers can be had
}

func (h *holder) Holds(_ context.Context, d ocispec.Descriptor, diffID digest.Digest) (bool, error) {
	h.asked++
	return h.holds[claim{d.Digest, diffID}], nil
}

func (h *holder) LayerBlob(_ context.Context, _ digest.Digest, l Layer, _ time.Time) (ocispec.Descriptor, error) {
	if l.Blob.Digest == l.DiffID && !h.plain {
		return l.Blob, errors.New("only its files are here, and not as they came")
	}
	return l.Blob, nil
}

func (h *holder) LayerBlobs(ctx context.Context, layers []Placed, epoch time.Time) (list []ocispec.Descriptor, err error) {
	for _, p := range layers {
		d, err := h.LayerBlob(ctx, p.Below, p.Layer, epoch)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

// A cache that names a blob for a layer that is here has an image, and a record, say so
// only if the blob holds it.
func TestLyingCache(t *testing.T) {
	diffID, good, evil := digest.FromString("layer"), digest.FromString("good"), digest.FromString("evil")
	h := &holder{plain: true, holds: map[claim]bool{{good, diffID}: true}}
	s := &Solver{Config: Config{Store: h}}
	of := func(blob digest.Digest) (*Job, []Layer) {
		j, layers := s.Job(nil, mute{}, JobOptions{}), []Layer{{Chain: diffID, DiffID: diffID, Blob: ocispec.Descriptor{Digest: blob, Size: 1}}}
		j.doubt(layers)
		return j, layers
	}
	for blob, want := range map[digest.Digest]digest.Digest{good: good, evil: diffID} {
		j, layers := of(blob)
		list, err := j.blobs(t.Context(), layers, time.Time{})
		if err != nil || list[0].Digest != want {
			t.Errorf("an image has %v, and not %s: %v", list, want, err)
		}
		if o := j.honest(t.Context(), []*output{{layers: layers}})[0]; o.layers[0].Blob.Digest != want {
			t.Errorf("what is remembered has %s, and not %s", o.layers[0].Blob.Digest, want)
		}
		if layers[0].Blob.Digest != blob {
			t.Error("others' layers were changed")
		}
	}
	h.plain = false
	j, layers := of(evil)
	if list, err := j.blobs(t.Context(), layers, time.Time{}); !errors.Is(err, errNowhere) {
		t.Errorf("an image has %v: %v", list, err)
	}
	h.asked = 0
	j, layers = of(evil)
	j.believe(layers) // it was unpacked
	if _, err := j.blobs(t.Context(), layers, time.Time{}); err != nil || h.asked != 0 {
		t.Errorf("asked %d times: %v", h.asked, err)
	}
}

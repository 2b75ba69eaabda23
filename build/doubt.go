package build

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

// A cache from elsewhere says of each layer which blob it is and what that holds. Whoever
// unpacks the blob finds out. A layer that is here already is not unpacked, and the word
// of the cache is put to the test before an image, a cache or a record says the same.

// claim is that a blob holds a layer.
type claim struct{ blob, diffID digest.Digest }

// doubt notes what a cache from elsewhere says of layers.
func (j *Job) doubt(layers []Layer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range layers {
		c := claim{l.Blob.Digest, l.DiffID}
		if _, known := j.doubts[c]; !known && c.blob != "" && c.blob != c.diffID {
			j.doubts[c] = true
		}
	}
}

// believe notes what turned out to be so.
func (j *Job) believe(layers []Layer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range layers {
		j.doubts[claim{l.Blob.Digest, l.DiffID}] = false
	}
}

// isSure tells whether it is not only the word of a cache from elsewhere that the blob
// holds the layer.
func (j *Job) isSure(blob, diffID digest.Digest) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.doubts[claim{blob, diffID}]
}

// isTrue finds out whether the layer's blob, which is here, holds it.
func (j *Job) isTrue(ctx context.Context, l Layer) (bool, error) {
	if j.isSure(l.Blob.Digest, l.DiffID) {
		return true, nil
	}
	holds, err := j.solver.Store.Holds(ctx, l.Blob, l.DiffID)
	if holds {
		j.believe([]Layer{l})
	}
	return holds, err
}

// sureBlob is blob for what others will be told: a blob that is not what a cache said of it
// is not taken for the layer.
func (j *Job) sureBlob(ctx context.Context, below digest.Digest, l Layer, epoch time.Time) (ocispec.Descriptor, error) {
	d, err := j.blob(ctx, below, l, epoch)
	if err != nil {
		return d, err
	}
	found := l
	found.Blob = d
	holds, err := j.isTrue(ctx, found)
	if err != nil || holds {
		return d, err
	}
	d, err = j.solver.Store.LayerBlob(ctx, l.madeOn(below), l.plain(), epoch)
	if err != nil {
		return d, errors.Join(errNowhere, fault.New(fault.Invalid, "a cache says that the blob %s holds the layer %s, and it does not: build without that cache", found.Blob.Digest, l.DiffID), err)
	}
	return d, nil
}

// plain is the layer by its archive.
func (l Layer) plain() Layer {
	l.Blob = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.DiffID}
	return l
}

// honest are the outputs to be remembered, without what a cache said of their blobs and
// is not so, or cannot be found out. They are as good without: their files are here.
func (j *Job) honest(ctx context.Context, outputs []*output) []*output {
	outputs = slices.Clone(outputs)
	for i, o := range outputs {
		for n, l := range o.layers {
			if holds, err := j.isTrue(ctx, l); err == nil && holds {
				continue
			}
			if outputs[i] == o {
				clean := *o
				clean.layers = slices.Clone(o.layers)
				outputs[i] = &clean
			}
			outputs[i].layers[n] = l.plain()
		}
	}
	return outputs
}

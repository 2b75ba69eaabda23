// Package unpack makes the layers of images out of their blobs, which may still be on
// their way: all layers of an image beside each other, each once however many want it,
// and each at its place only when its digest is right and the layer below is there.
package unpack

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/snapshot"
)

// maxUnpacking is how many layers that are stored are unpacked at a time. Each
// takes some megabytes of buffers. Those that are on their way yet are as many as
// there are downloads: a registry may take its time with them, and hold up no
// others by that.
const maxUnpacking = 4

// Unpacker makes unpacked layers of blobs.
type Unpacker struct {
	content *content.Store
	layers  *snapshot.Store
	busy    keylock.Locks[placing] // each layer is unpacked once
	turns   chan struct{}          // one token for each stored layer that may be unpacked at a time
}

// placing is a blob being unpacked to a chain ID. What another blob is said to
// hold does not wait for it: that may never come.
type placing struct {
	chain, blob digest.Digest
	size        int64 // that the blob is said to have
}

// New begins with nothing under way.
func New(store *content.Store, layers *snapshot.Store) *Unpacker {
	return &Unpacker{content: store, layers: layers, turns: make(chan struct{}, maxUnpacking)}
}

// Unpack makes the layers that are missing, out of blobs that are stored. The
// caller holds the content.
func (u *Unpacker) Unpack(ctx context.Context, layers []ocispec.Descriptor, diffIDs []digest.Digest) error {
	k := u.Stack(layers, diffIDs)
	g, ctx := errgroup.WithContext(ctx)
	for i, layer := range layers {
		if !k.Has(i) {
			g.Go(func() error { return k.Unpack(ctx, i, u.Stored(layer)) })
		}
	}
	return g.Wait()
}

// Opener opens a blob, which may be on its way yet. done is to be called at the
// end of the reading.
type Opener func(ctx context.Context) (r io.Reader, done func(), err error)

// Stored opens a blob that is stored, when it is its turn.
func (u *Unpacker) Stored(d ocispec.Descriptor) Opener {
	return func(ctx context.Context) (io.Reader, func(), error) {
		release, err := u.turn(ctx)
		if err != nil {
			return nil, nil, err
		}
		f, _, err := u.content.Open(d.Digest)
		if err != nil {
			release()
			return nil, nil, err
		}
		return f, func() { f.Close(); release() }, nil
	}
}

// Stack is the layers of one image being unpacked, each as soon as its bytes
// come.
type Stack struct {
	u       *Unpacker
	layers  []ocispec.Descriptor
	diffIDs []digest.Digest
	chains  []digest.Digest
	placed  []chan struct{} // closed when the layer is at its place
}

// Stack begins with the layers of an image, the lowest first.
func (u *Unpacker) Stack(layers []ocispec.Descriptor, diffIDs []digest.Digest) *Stack {
	k := &Stack{u: u, layers: layers, diffIDs: diffIDs}
	var chain digest.Digest
	for _, diff := range diffIDs {
		chain = snapshot.ChainID(chain, diff)
		k.chains, k.placed = append(k.chains, chain), append(k.placed, make(chan struct{}))
	}
	return k
}

// Has tells whether the layer is unpacked. It is called for each layer once,
// before Unpack.
func (k *Stack) Has(i int) bool {
	if !k.u.layers.Has(k.chains[i]) {
		return false
	}
	close(k.placed[i])
	return true
}

// Unpack makes one layer. All layers must be unpacked at the same time, as each
// waits for the one below.
func (k *Stack) Unpack(ctx context.Context, i int, open Opener) error {
	if err := k.unpackOne(ctx, i, open); err != nil {
		return fmt.Errorf("cannot unpack layer %s: %w", k.layers[i].Digest, err)
	}
	close(k.placed[i])
	return nil
}

// parent is the chain ID of the layer below, "" for none.
func (k *Stack) parent(i int) digest.Digest {
	if i == 0 {
		return ""
	}
	return k.chains[i-1]
}

// below waits until the layer below is at its place.
func (k *Stack) below(ctx context.Context, i int) error {
	if i == 0 {
		return nil
	}
	select {
	case <-k.placed[i-1]:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (k *Stack) unpackOne(ctx context.Context, i int, open Opener) error {
	if err := CheckType(k.layers[i].MediaType); err != nil {
		return err
	}
	unlock, err := k.u.busy.Lock(ctx, placing{k.chains[i], k.layers[i].Digest, k.layers[i].Size})
	if err != nil {
		return err
	}
	defer unlock()
	if k.u.layers.Has(k.chains[i]) {
		return nil
	}
	if !k.u.layers.Independent() {
		if err := k.below(ctx, i); err != nil {
			return err
		}
	}
	tree, err := k.u.layers.Begin(k.parent(i))
	if err != nil {
		return err
	}
	defer tree.Close()
	if err := k.apply(ctx, tree, i, open); err != nil {
		return err
	}
	if err := k.below(ctx, i); err != nil {
		return err
	}
	_, err = tree.Commit(k.parent(i), k.diffIDs[i])
	return err
}

// apply extracts the blob and checks that it is what the image promises.
func (k *Stack) apply(ctx context.Context, tree *snapshot.Unpacking, i int, open Opener) error {
	blob, done, err := open(ctx)
	if err != nil {
		return err
	}
	// With the turn, which the layer below needs, too: not held while waiting for it.
	defer done()
	plain, _, err := compression.Decompress(blob)
	if err != nil {
		return err
	}
	defer plain.Close()
	sum := k.diffIDs[i].Verifier()
	ahead := archive.ReadAhead(io.TeeReader(plain, sum))
	defer ahead.Close()
	if err := tree.Apply(ctx, ahead); err != nil {
		return err
	}
	if !sum.Verified() {
		return fault.New(fault.Invalid, "layer content does not have the digest %s that the image promises", k.diffIDs[i])
	}
	return nil
}

// turn waits until one more stored layer may be unpacked.
func (u *Unpacker) turn(ctx context.Context) (release func(), err error) {
	select {
	case u.turns <- struct{}{}:
		return func() { <-u.turns }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// CheckType refuses what is no layer, or none that can be read.
func CheckType(mediaType string) error {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		ocispec.MediaTypeImageLayerNonDistributable, ocispec.MediaTypeImageLayerNonDistributableGzip, //nolint:staticcheck // old images have them
		ocispec.MediaTypeImageLayerNonDistributableZstd, //nolint:staticcheck // the same
		content.DockerLayer, content.DockerLayerGzip, content.DockerLayer + ".zstd", DockerForeign, DockerForeign + ".gzip":
		return nil
	}
	return fault.New(fault.NotImplemented, "layers of the type %q are not supported", mediaType)
}

// DockerForeign is Docker's type of a layer that registries do not hold.
const DockerForeign = "application/vnd.docker.image.rootfs.foreign.diff.tar"

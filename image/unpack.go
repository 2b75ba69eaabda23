package image

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/snapshot"
	"golang.org/x/sync/errgroup"
)

// Unpacked makes sure that the image's layers are unpacked and returns the
// topmost one's chain ID. They are since import or load, unless the image is
// of another platform than this machine's.
func (s *Service) Unpacked(ctx context.Context, img Image) (digest.Digest, error) {
	if img.ChainID != "" && !s.layers.Has(img.ChainID) {
		defer s.content.Hold()()
		if err := s.unpacker.unpack(ctx, img.layers, img.DiffIDs); err != nil {
			return "", err
		}
	}
	// Somebody else may have unpacked them just now: what is not synced the next
	// daemon throws away, below a container that runs.
	return img.ChainID, s.layers.SyncChain(img.ChainID)
}

// UnpackManifest is Unpacked for a manifest that was chosen earlier. Its image
// may have lost its names by now, or be an index that has it among others.
func (s *Service) UnpackManifest(ctx context.Context, manifest ocispec.Descriptor) (digest.Digest, error) {
	defer s.content.Hold()()
	d, err := s.detail(manifest)
	if err != nil {
		return "", err
	}
	if err := s.unpacker.unpack(ctx, d.manifest.Layers, d.config.RootFS.DiffIDs); err != nil {
		return "", err
	}
	return d.chain(), s.layers.SyncChain(d.chain())
}

// maxUnpacking is how many layers that are stored are unpacked at a time. Each
// takes some megabytes of buffers. Those that are on their way yet are as many as
// there are downloads: a registry may take its time with them, and hold up no
// others by that.
const maxUnpacking = 4

// unpacker makes unpacked layers of blobs.
type unpacker struct {
	content *content.Store
	layers  *snapshot.Store
	busy    keylock.Locks[placing] // each layer is unpacked once
	turns   chan struct{}          // one token for each stored layer that may be unpacked at a time
}

// placing is a blob being unpacked to a chain ID. What another blob is said to
// hold does not wait for it: that may never come.
type placing struct {
	chain digest.Digest
	blob  blob
}

func newUnpacker(store *content.Store, layers *snapshot.Store) *unpacker {
	return &unpacker{content: store, layers: layers, turns: make(chan struct{}, maxUnpacking)}
}

// unpack makes the layers that are missing, out of blobs that are stored. The
// caller holds the content.
func (u *unpacker) unpack(ctx context.Context, layers []ocispec.Descriptor, diffIDs []digest.Digest) error {
	k := u.newStack(layers, diffIDs)
	g, ctx := errgroup.WithContext(ctx)
	for i, layer := range layers {
		if !k.has(i) {
			g.Go(func() error { return k.unpack(ctx, i, u.stored(layer)) })
		}
	}
	return g.Wait()
}

// opener opens a blob, which may be on its way yet. done is to be called at the
// end of the reading.
type opener func(ctx context.Context) (r io.Reader, done func(), err error)

func (u *unpacker) stored(d ocispec.Descriptor) opener {
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

// stack is the layers of one image being unpacked, each as soon as its bytes
// come.
type stack struct {
	u       *unpacker
	layers  []ocispec.Descriptor
	diffIDs []digest.Digest
	chains  []digest.Digest
	placed  []chan struct{} // closed when the layer is at its place
}

func (u *unpacker) newStack(layers []ocispec.Descriptor, diffIDs []digest.Digest) *stack {
	k := &stack{u: u, layers: layers, diffIDs: diffIDs}
	var chain digest.Digest
	for _, diff := range diffIDs {
		chain = snapshot.ChainID(chain, diff)
		k.chains, k.placed = append(k.chains, chain), append(k.placed, make(chan struct{}))
	}
	return k
}

// has tells whether the layer is unpacked. It is called for each layer once,
// before unpack.
func (k *stack) has(i int) bool {
	if !k.u.layers.Has(k.chains[i]) {
		return false
	}
	close(k.placed[i])
	return true
}

// unpack makes one layer. All layers must be unpacked at the same time, as each
// waits for the one below.
func (k *stack) unpack(ctx context.Context, i int, open opener) error {
	if err := k.unpackOne(ctx, i, open); err != nil {
		return fmt.Errorf("cannot unpack layer %s: %w", k.layers[i].Digest, err)
	}
	close(k.placed[i])
	return nil
}

// parent is the chain ID of the layer below, "" for none.
func (k *stack) parent(i int) digest.Digest {
	if i == 0 {
		return ""
	}
	return k.chains[i-1]
}

// below waits until the layer below is at its place.
func (k *stack) below(ctx context.Context, i int) error {
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

func (k *stack) unpackOne(ctx context.Context, i int, open opener) error {
	if err := checkLayerType(k.layers[i].MediaType); err != nil {
		return err
	}
	unlock, err := k.u.busy.Lock(ctx, placing{k.chains[i], blob{k.layers[i].Digest, k.layers[i].Size}})
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
func (k *stack) apply(ctx context.Context, tree *snapshot.Unpacking, i int, open opener) error {
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
func (u *unpacker) turn(ctx context.Context) (release func(), err error) {
	select {
	case u.turns <- struct{}{}:
		return func() { <-u.turns }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func checkLayerType(mediaType string) error {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		ocispec.MediaTypeImageLayerNonDistributable, ocispec.MediaTypeImageLayerNonDistributableGzip, //nolint:staticcheck // old images have them
		ocispec.MediaTypeImageLayerNonDistributableZstd, //nolint:staticcheck // the same
		content.DockerLayer, content.DockerLayerGzip, content.DockerLayer + ".zstd", dockerForeignLayer, dockerForeignLayer + ".gzip":
		return nil
	}
	return fault.New(fault.NotImplemented, "layers of the type %q are not supported", mediaType)
}

// dockerForeignLayer is Docker's type of a layer that registries do not hold.
const dockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar"

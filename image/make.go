package image

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/sum"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/snapshot"
)

// Made is a layer that was made here.
type Made struct {
	Chain digest.Digest // with it on top
	Blob  ocispec.Descriptor
}

// Making makes images piece by piece, as builds do: trees become layers,
// blobs are added, and what they make gets a name at last. Until then only Hold
// keeps the pieces. Its methods may be called at the same time.
type Making struct{ images *Service }

// Making gives out the means.
func (s *Service) Making() *Making { return &Making{s} }

// Hold keeps the blobs and layers that nobody names yet from collection until
// done is called.
func (m *Making) Hold() (done func()) { return m.images.content.Hold() }

// Seal makes a layer of what the tree id, of the store of snapshots, has
// beyond its chain, and the tree is gone. Without changes it is a layer that is
// empty. Epoch, unless zero, bounds the times of the
// files. Nothing may be mounted from the tree.
func (m *Making) Seal(ctx context.Context, id string, below digest.Digest, epoch time.Time) (Made, error) {
	s := m.images
	defer m.Hold()()
	changes, err := s.layers.Changes(id)
	if err != nil {
		return Made{}, err
	}
	defer changes.Close()
	if !s.layers.Adopts() {
		return m.unpacked(ctx, id, below, changes, epoch)
	}
	// The files are all that is kept: see remaker.
	archived := sum.New(&s.sums, changes.Linked)
	_, err = changes.WriteLayer(ctx, archived, archive.WriteOptions{Latest: epoch, Still: true, Content: func(file int, st *unix.Stat_t, write func() error) error {
		return archived.Content(ctx, file, st, write)
	}})
	d, size := archived.Close()
	if err != nil {
		return Made{}, err
	}
	made := Made{Blob: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size}}
	made.Chain, err = s.layers.Adopt(id, d, size, epoch)
	return made, err
}

// unpacked makes the layer of an archive, where trees are kept whole.
func (m *Making) unpacked(ctx context.Context, id string, below digest.Digest, changes *snapshot.Changes, epoch time.Time) (Made, error) {
	s := m.images
	blob, err := s.content.Create(digest.SHA256)
	if err != nil {
		return Made{}, err
	}
	defer blob.Close()
	if _, err := changes.WriteLayer(ctx, blob, archive.WriteOptions{Latest: epoch, Still: true}); err != nil {
		return Made{}, err
	}
	size := blob.Size()
	d, err := blob.Commit("", -1)
	if err != nil {
		return Made{}, err
	}
	made := Made{Blob: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size}}
	made.Chain, err = m.unpack(ctx, below, d)
	return made, errors.Join(err, s.layers.Remove(id))
}

// remaker makes the archives of layers that were made here, of their files.
type remaker struct{ layers *snapshot.Store }

func (r remaker) Size(d digest.Digest) (int64, bool) {
	_, size, _, ok := r.layers.Made(d)
	return size, ok
}

func (r remaker) Write(ctx context.Context, d digest.Digest, w io.Writer) error {
	chain, _, latest, ok := r.layers.Made(d)
	if !ok {
		return fault.New(fault.NotFound, "the layer %s is not here any more", d)
	}
	changes, err := r.layers.LayerChanges(chain)
	if err != nil {
		return err
	}
	defer changes.Close()
	_, err = changes.WriteLayer(ctx, w, archive.WriteOptions{Latest: latest, Still: true})
	return err
}

// unpack makes the layer of its blob.
func (m *Making) unpack(ctx context.Context, below, d digest.Digest) (digest.Digest, error) {
	r, err := m.Open(d)
	if err != nil {
		return "", err
	}
	defer r.Close()
	return m.images.layers.Unpack(ctx, below, d, r)
}

// Blob finds the blob of a layer that is here, and makes it again when only its
// files are left. Epoch is what Seal was told.
func (m *Making) Blob(ctx context.Context, below, diffID digest.Digest, epoch time.Time) (ocispec.Descriptor, error) {
	s := m.images
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diffID}
	if size, ok := s.content.Size(diffID); ok {
		d.Size = size
		return d, nil
	}
	chain := snapshot.ChainID(below, diffID)
	changes, err := s.layers.LayerChanges(chain)
	if err != nil {
		return d, err
	}
	defer changes.Close()
	blob, err := s.content.Create(digest.SHA256)
	if err != nil {
		return d, err
	}
	defer blob.Close()
	if _, err := changes.WriteLayer(ctx, blob, archive.WriteOptions{Latest: epoch, Still: true}); err != nil {
		return d, err
	}
	d.Size = blob.Size()
	_, err = blob.Commit(diffID, d.Size)
	return d, err
}

// Open opens a blob.
func (m *Making) Open(d digest.Digest) (io.ReadCloser, error) {
	f, _, err := m.images.content.Open(d)
	return f, err
}

// Put stores a blob; its bytes must be those that the descriptor says.
func (m *Making) Put(d ocispec.Descriptor, r io.Reader) error {
	_, err := m.images.content.Ingest(r, d.Digest, d.Size)
	return err
}

// Pin keeps chains that no image has, in place of those of the last call.
func (m *Making) Pin(chains []digest.Digest) error { return m.images.layers.Pin(chains) }

// Publish gives a manifest or index, all of whose blobs are here, its names, as
// they are normalized, and returns its ID. Without a name it is there by its
// ID. When it returns the image survives the end of this process, and soon a power
// loss.
func (m *Making) Publish(target ocispec.Descriptor, names []string) (id string, err error) {
	s := m.images
	defer m.Hold()()
	if !content.IsIndex(target.MediaType) {
		if _, err := s.Catalog.Detail(target); err != nil {
			return "", err
		}
	}
	now := time.Now()
	entries := []content.Entry{{Target: target, Updated: now}}
	if len(names) > 0 {
		entries = nil
	}
	for _, name := range names {
		r, err := reference.Parse(name)
		if err != nil {
			return "", err
		}
		if r.Digest != "" {
			return "", fault.New(fault.Invalid, "cannot name an image %s: a name has no digest", name)
		}
		entries = append(entries, content.Entry{Name: r.String(), Target: target, Updated: now})
	}
	if err := s.storeSoon(entries); err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Name != "" {
			s.publish("tag", target, e.Name)
		}
	}
	return target.Digest.String(), nil
}

// Read reads a small blob, such as a config.
func (m *Making) Read(d ocispec.Descriptor) ([]byte, error) {
	return m.images.content.Read(d.Digest, d.Size)
}

// LayersOf lists the layers of a manifest that is here, the lowest first: their
// blobs, and their DiffIDs.
func (m *Making) LayersOf(manifest ocispec.Descriptor) (blobs []ocispec.Descriptor, diffIDs []digest.Digest, err error) {
	d, err := m.images.Catalog.Detail(manifest)
	if err != nil {
		return nil, nil, err
	}
	if blobs, diffIDs = d.Manifest.Layers, d.Config.RootFS.DiffIDs; len(blobs) != len(diffIDs) {
		return nil, nil, fault.New(fault.Invalid, "the manifest %s has %d layers, and its config %d", manifest.Digest, len(blobs), len(diffIDs))
	}
	return blobs, diffIDs, nil
}

// Config reads the config of a manifest as it is stored.
func (m *Making) Config(manifest ocispec.Descriptor) ([]byte, error) {
	d, err := m.images.Catalog.Detail(manifest)
	if err != nil {
		return nil, err
	}
	return m.Read(d.Manifest.Config)
}

// Needed lists the chains that images have, with those below them.
func (m *Making) Needed() (chains []digest.Digest) {
	s := m.images
	for _, e := range s.content.Index().Entries() {
		for _, member := range s.Catalog.Members(e.Target) {
			if member.Detail == nil {
				continue
			}
			chain := digest.Digest("")
			for _, d := range member.Detail.Config.RootFS.DiffIDs {
				chain = snapshot.ChainID(chain, d)
				chains = append(chains, chain)
			}
		}
	}
	return chains
}

package dir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/manifest"
)

var (
	// errIncomplete is what an image lacks of which another platform may be whole.
	errIncomplete = errors.New("content is missing")
	// errOdd is a manifest that a registry would not take, and an image store has.
	errOdd = errors.New("not a manifest for a registry")
)

func incomplete(d digest.Digest) error {
	return fault.New(fault.Invalid, "content %s is missing or has another size than it should: push or pull the image again where it is whole, or remove its name%w", d, silent{errIncomplete})
}

// silent is an error for the program alone.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// parse reads a manifest that another program has stored. To be served it must be
// one that could be pushed; to be kept, whatever it seems to name is enough.
func (s *Storage) parse(d ocispec.Descriptor, serve bool) (record, error) {
	if !content.IsNode(d.MediaType) {
		size, err := s.sizeOf(d.Digest)
		if err == nil && serve {
			err = errOdd
		}
		return record{Descriptor: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: size}}, err
	}
	data, err := s.readManifest(d.Digest)
	if err != nil {
		return record{}, err
	}
	named := seen(data, d)
	if !serve {
		return named, nil
	}
	m, err := manifest.Read(d.MediaType, d.Digest.Algorithm(), data)
	if err != nil {
		return record{}, fmt.Errorf("%w: %w", errOdd, err)
	}
	strict := newRecord(m)
	needed := map[digest.Digest]bool{}
	for _, b := range strict.Blobs {
		needed[b.Digest] = true
	}
	for _, b := range named.Blobs {
		if !needed[b.Digest] && !s.isLost(b.Digest) { // not to be distributed, and here nevertheless
			strict.Blobs = append(strict.Blobs, b)
		}
	}
	return strict, nil
}

func (s *Storage) sizeOf(d digest.Digest) (int64, error) {
	st, err := os.Stat(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, incomplete(d)
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (s *Storage) readManifest(d digest.Digest) ([]byte, error) {
	f, err := os.Open(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, incomplete(d)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, manifest.MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > manifest.MaxSize {
		return nil, fault.New(fault.Invalid, "manifest %s has more than %d bytes: remove its name", d, manifest.MaxSize)
	}
	if got := d.Algorithm().FromBytes(data); got != d {
		return nil, fault.New(fault.Invalid, "manifest %s is damaged, it has the digest %s: push or pull the image again where it is whole, or remove its name", d, got)
	}
	return data, nil
}

// seen is what an image store sees in a manifest. What is no digest is nothing.
func seen(data []byte, d ocispec.Descriptor) record {
	var doc struct {
		Config            ocispec.Descriptor
		Layers, Manifests []ocispec.Descriptor
	}
	rec := record{Descriptor: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: int64(len(data))}}
	if json.Unmarshal(data, &doc) != nil {
		return rec
	}
	if content.IsIndex(d.MediaType) {
		rec.Manifests = valid(doc.Manifests)
	} else {
		rec.Blobs = valid(append([]ocispec.Descriptor{doc.Config}, doc.Layers...))
	}
	return rec.trim()
}

func valid(list []ocispec.Descriptor) (valid []ocispec.Descriptor) {
	for _, d := range list {
		if d.Digest.Validate() == nil {
			valid = append(valid, d)
		}
	}
	return valid
}

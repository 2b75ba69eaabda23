package content

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
)

// Writer takes one new blob. Close without Commit leaves nothing behind.
type Writer struct {
	store     *Store
	f         *os.File
	algorithm digest.Algorithm
	hash      hash.Hash
	size      int64
	synced    bool // all that was written is on disk
}

// Create begins a blob whose digest will be of the algorithm (sha256 when
// empty).
func (s *Store) Create(algorithm digest.Algorithm) (*Writer, error) {
	if algorithm == "" {
		algorithm = digest.SHA256
	}
	if !algorithm.Available() {
		return nil, fault.New(fault.Invalid, "unsupported digest algorithm %q", algorithm)
	}
	f, err := os.CreateTemp(s.path("ingest"), "blob")
	if err != nil {
		return nil, err
	}
	return &Writer{store: s, f: f, algorithm: algorithm, hash: algorithm.Hash()}, nil
}

// Write appends to the blob.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	w.synced = false
	return n, err
}

// Commit puts the blob at its place under the digest that it has, which must
// be want and size unless these are "" and -1 (fault.Invalid otherwise). A
// blob that is there already is replaced: what was just verified is better
// than what may have rotted. It is not synced; see Store.Sync.
func (w *Writer) Commit(want digest.Digest, size int64) (digest.Digest, error) {
	defer w.Close()
	got := digest.NewDigest(w.algorithm, w.hash)
	if size >= 0 && w.size != size {
		return "", fault.New(fault.Invalid, "content %s has %d bytes instead of %d", want, w.size, size)
	}
	if want != "" && got != want {
		return "", fault.New(fault.Invalid, "content has the digest %s instead of %s", got, want)
	}
	path, err := w.store.blobPath(got)
	if err != nil {
		return "", err
	}
	if err := w.f.Chmod(0o444); err != nil {
		return "", err
	}
	name := w.f.Name()
	if err := w.f.Close(); err != nil {
		return "", err
	}
	if !w.synced { // before anybody can find it
		w.store.unsynced.Store(got, w.store.written.Add(1))
	}
	err = os.Rename(name, path)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.Rename(name, path)
		}
	}
	if err == nil {
		w.f = nil
		w.store.forgotten.Delete(got)
	}
	return got, err
}

// Sync returns when the bytes written so far survive power loss.
func (w *Writer) Sync() error {
	err := w.f.Sync()
	w.synced = err == nil
	return err
}

// Size is the number of bytes written.
func (w *Writer) Size() int64 { return w.size }

// Close drops the blob unless it was committed.
func (w *Writer) Close() error {
	if w.f == nil {
		return nil
	}
	w.f.Close()
	err := os.Remove(w.f.Name())
	w.f = nil
	return err
}

// Ingest stores all of r as one blob with the digest and the size (-1 when
// unknown) and returns its size.
func (s *Store) Ingest(r io.Reader, want digest.Digest, size int64) (int64, error) {
	w, err := s.Create(want.Algorithm())
	if err != nil {
		return 0, err
	}
	defer w.Close()
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, min(max(size+1, 512), 1<<20))); err != nil {
		return 0, err
	}
	_, err = w.Commit(want, size)
	return w.size, err
}

// Put stores a small blob and returns its digest.
func (s *Store) Put(data []byte) (digest.Digest, error) {
	d := digest.FromBytes(data)
	_, err := s.Ingest(bytes.NewReader(data), d, int64(len(data)))
	return d, err
}

// PutJSON stores a document, which is of the media type, and describes it.
func (s *Store) PutJSON(mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := s.Put(data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, err
}

// Keep stores a small blob of the digest (fault.Invalid when it is not), whose
// bytes survive power loss when it returns; see SyncContent.
func (s *Store) Keep(d digest.Digest, data []byte) error {
	w, err := s.Create(d.Algorithm())
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Sync(); err != nil {
		return err
	}
	_, err = w.Commit(d, int64(len(data)))
	return err
}

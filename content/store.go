// Package content stores blobs by digest, and the names that point to them, as
// an OCI image layout:
//
//	oci-layout               {"imageLayoutVersion":"1.0.0"}
//	format.json              {"version":1}; see format.go
//	index.json               one descriptor per name; see index.go
//	index.soon.json          the same, while index.json is behind; see soon.go
//	blobs/sha256/<hex>       complete and verified; never changed
//	ingest/                  blobs being written; emptied by Open
//	partial/<algorithm>-<hex>-<size> what was fetched of blobs for images that are not whole; see partial.go
//
// A blob gets its place by rename(2) after its digest was checked, and the
// index is replaced whole, so a crash leaves at worst blobs without a name,
// which Collect removes. Names live in memory as an immutable value: readers
// never wait for I/O.
//
// Who writes blobs in order to name them later holds the store (Hold) in
// between, so that no collection takes them away.
package content

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
	"golang.org/x/sys/unix"
)

// Store is one layout on disk, used by one process at a time.
type Store struct {
	root    string
	lock    *os.File // the root, which no registry may use meanwhile
	index   atomic.Pointer[Index]
	names   sync.Mutex // serialises changes of the index, disk included
	pending pending    // under names
	nodes   sync.Map   // reading -> *Node; blobs never change

	fetching claims // of each Partial that is open

	unsynced sync.Map      // digest.Digest of a blob that power loss may take -> uint64, which writing of it
	written  atomic.Uint64 // writings so far

	forgotten sync.Map // digest.Digest -> string, the path: blobs that count as missing, and go with the last hold
	remaker   Remaker  // nil if there is none

	gate    sync.Mutex // held for a whole collection
	holds   int
	overdue bool // a collection was wanted while the store was held
	after   func([]ocispec.Descriptor) error
}

// BehindFile is there while a registry that keeps its images in the directory has
// some that index.json does not name.
const BehindFile = "index.behind"

// share refuses a directory that a registry works in, and keeps registries away.
// Image stores do not keep each other away.
func share(root string) (*os.File, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, fault.New(fault.Conflict, "%s is in use by a registry: end that tare-registry first", root)
	}
	if _, err := os.Lstat(filepath.Join(root, BehindFile)); err == nil {
		f.Close()
		return nil, fault.New(fault.Conflict, "%s is the root of a registry that ended before it wrote index.json: start and stop tare-registry there once", root)
	}
	return f, nil
}

// Open opens the layout at root, making it when it is missing, and throws away
// what a crash left half written.
func Open(root string) (_ *Store, err error) {
	s := &Store{root: root}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	if s.lock, err = share(root); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Close())
		}
	}()
	if err := os.RemoveAll(s.path("ingest")); err != nil {
		return nil, err
	}
	for _, name := range []string{ocispec.ImageIndexFile, soonFile, ocispec.ImageLayoutFile, formatFile} {
		if err := atomicfile.Clean(s.path(name)); err != nil {
			return nil, err
		}
	}
	for _, dir := range []string{"ingest", "partial", "blobs/sha256"} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			return nil, err
		}
	}
	if _, err := s.DropPartials(partialAge); err != nil {
		return nil, err
	}
	if err := Prepare(root); err != nil {
		return nil, err
	}
	ix, err := readIndex(s.path(ocispec.ImageIndexFile))
	if err != nil {
		return nil, err
	}
	s.index.Store(ix)
	return s, nil
}

// Close lets registries use the directory.
func (s *Store) Close() error { return s.lock.Close() }

func (s *Store) path(rel string) string { return filepath.Join(s.root, rel) }

// Prepare makes the directory, which is there, a layout of the present format, or
// refuses what is none.
func Prepare(root string) error { return errors.Join(checkLayout(root), migrate(root)) }

func checkLayout(root string) error {
	path := filepath.Join(root, ocispec.ImageLayoutFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		data, _ = json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
		return atomicfile.WriteSync(path, data, 0o644)
	}
	if err != nil {
		return err
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(data, &layout); err != nil || layout.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%s is not an OCI image layout of version %s", root, ocispec.ImageLayoutVersion)
	}
	return nil
}

// Sync returns when everything written so far survives power loss.
func (s *Store) Sync() error {
	before := map[any]any{}
	s.unsynced.Range(func(d, writing any) bool {
		before[d] = writing
		return true
	})
	root, err := os.Open(s.root)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		return err
	}
	for d, writing := range before {
		s.unsynced.CompareAndDelete(d, writing)
	}
	return nil
}

// SyncContent returns when all that the targets lead to survives power loss.
// What was synced blob by blob, as a Partial's is, costs little; for what
// somebody else is just writing it is Sync.
func (s *Store) SyncContent(targets ...ocispec.Descriptor) error {
	all := true
	for _, t := range targets {
		err := s.Reach(t, func(d ocispec.Descriptor, _ int64) error {
			_, unsynced := s.unsynced.Load(d.Digest)
			all = all && !unsynced
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !all {
		return s.Sync()
	}
	return s.syncNames()
}

// syncNames returns when the blobs that were synced one by one are found after
// power loss.
func (s *Store) syncNames() error {
	blobs := s.path(ocispec.ImageBlobsDir)
	algorithms, err := os.ReadDir(blobs)
	if err != nil {
		return err
	}
	err = atomicfile.SyncDir(blobs)
	for _, a := range algorithms {
		err = errors.Join(err, atomicfile.SyncDir(filepath.Join(blobs, a.Name())))
	}
	return err
}

func (s *Store) blobPath(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fault.New(fault.Invalid, "%q is not a digest: %w", d, err)
	}
	return s.path(filepath.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())), nil
}

// Size tells how many bytes the blob has, and whether it is there.
func (s *Store) Size(d digest.Digest) (int64, bool) {
	size, err := s.stat(d)
	return size, err == nil
}

// stat is Size with the reason: fs.ErrNotExist when the blob is not there.
func (s *Store) stat(d digest.Digest) (int64, error) {
	path, err := s.blobPath(d)
	if err != nil {
		return 0, err
	}
	if _, gone := s.forgotten.Load(d); gone {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
	}
	var st unix.Stat_t
	err = unix.Stat(path, &st)
	if err == unix.ENOENT && s.remaker != nil {
		if size, ok := s.remaker.Size(d); ok {
			return size, nil
		}
	}
	if err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Size, nil
}

// Open opens a blob to read. Its content is not checked again: see Verify.
func (s *Store) Open(d digest.Digest) (*os.File, int64, error) {
	path, err := s.blobPath(d)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.remake(d)
	}
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// Read returns a whole small blob, at most limit bytes, with its digest
// checked.
func (s *Store) Read(d digest.Digest, limit int64) ([]byte, error) {
	f, size, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fault.New(fault.Invalid, "content %s has %d bytes, more than the %d that are read", d, size, limit)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	if got := d.Algorithm().FromBytes(data); got != d {
		return nil, corrupted(d)
	}
	return data, nil
}

func notHere(d digest.Digest) error {
	return fault.New(fault.NotFound, "content %s is not in the store", d)
}

func corrupted(d digest.Digest) error {
	return fmt.Errorf("content %s is damaged in the store: load or import the image again", d)
}

// Verify returns a reader that passes r on and, instead of io.EOF, gives an
// error when the bytes did not have the digest.
func Verify(r io.Reader, d digest.Digest) io.Reader {
	v := &verifier{r: r, want: d, sum: d.Verifier()}
	return v
}

type verifier struct {
	r    io.Reader
	want digest.Digest
	sum  digest.Verifier
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.sum.Write(p[:n])
	if err == io.EOF && !v.sum.Verified() {
		err = corrupted(v.want)
	}
	return n, err
}

// Package dir keeps a registry in one directory, which is an image store of
// package content at the same time:
//
//	oci-layout, format.json  as package content has them
//	blobs/<alg>/<hex>        complete and verified; never changed
//	index.json               the names, written behind the changes; see index.go
//	index.behind             is there while index.json may lack changes
//	registry.db              repositories, their blobs, manifests and tags; see meta.go
//	uploads/<id>.state       an upload: repository, size, state of the hash; see upload.go
//	uploads/<id>.data        its bytes; uploads of the same bytes are names of one file, see body.go
//	uploads/<id>.tmp         a file on its way to another name
//
// What registry.db says is true. A file gets its place below blobs before the
// record that speaks of it is made, and loses it after the record is gone, both
// under the lock of its digest; so a crash leaves at worst files without a
// record, which Collect removes.
package dir

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/registry/storage"
)

const (
	database = "registry.db"
	uploads  = "uploads"
)

// Storage is one directory, used by one process at a time.
type Storage struct {
	root   string
	lock   *os.File // the root, locked
	db     *bbolt.DB
	commit group[*change]
	names  sync.Map // directory -> *group[*naming]

	digests keylock.Locks[digest.Digest] // over the files below blobs
	reading keylock.Locks[manifestKey]   // manifests that are being read from the disk
	found   *touches
	cache   *cache
	bodies  bodies
	buffers buffers
	busy    claims // ids below uploads
	collect sync.Mutex
	index   indexWriter
}

var _ storage.Storage = (*Storage)(nil)

// Open opens the registry in the directory and makes it when it is missing. An
// index.json that another program has changed is taken over. It is
// fault.Conflict while another process uses the directory.
func Open(root string) (_ *Storage, err error) {
	defer func() { err = explain(err) }()
	for _, dir := range []string{root, filepath.Join(root, uploads), filepath.Join(root, ocispec.ImageBlobsDir)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	lock, err := lockRoot(root)
	if err != nil {
		return nil, err
	}
	s := &Storage{root: root, lock: lock, found: newTouches(), cache: newCache(cacheBytes)}
	s.commit.run = s.runChanges
	s.bodies.init()
	if err := s.open(); err != nil {
		if s.db != nil {
			err = errors.Join(err, s.db.Close())
		}
		return nil, errors.Join(err, lock.Close())
	}
	s.index.start(s)
	return s, nil
}

func (s *Storage) open() (err error) {
	if err := content.Prepare(s.root); err != nil {
		return err
	}
	// A large reservation of addresses spares readers the wait for a new mapping
	// when the file grows.
	s.db, err = bbolt.Open(s.path(database), 0o600, &bbolt.Options{
		Timeout: time.Millisecond, FreelistType: bbolt.FreelistMapType, InitialMmapSize: 1 << 30, NoStatistics: true,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return inUse(s.root)
	}
	if err != nil {
		return fault.New(fault.KindOf(explain(err)), "cannot open %s: %w", s.path(database), err)
	}
	if err := s.migrate(); err != nil {
		return err
	}
	return s.importIndex()
}

// lockRoot keeps other registries and image stores away from the directory.
func lockRoot(root string) (*os.File, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, inUse(root)
	}
	return f, nil // where a directory cannot be locked the lock of registry.db has to do
}

func inUse(root string) error {
	return fault.New(fault.Conflict, "%s is in use by another process: end the tare-registry or tared that works there, or give another directory", root)
}

// Close writes index.json and ends the use of the directory.
func (s *Storage) Close() error {
	return explain(errors.Join(s.index.stop(s), s.db.Close(), s.lock.Close()))
}

// Ready tells whether the disk takes bytes and the database answers.
func (s *Storage) Ready(context.Context) error {
	id, release := s.busy.fresh()
	defer release()
	tmp := s.uploadPath(id, tmpSuffix)
	err := os.WriteFile(tmp, make([]byte, 4096), 0o600)
	if e := os.Remove(tmp); !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return explain(errors.Join(err, s.db.View(func(*bbolt.Tx) error { return nil })))
}

func (s *Storage) path(rel string) string { return filepath.Join(s.root, rel) }

func (s *Storage) blobPath(d digest.Digest) string {
	return filepath.Join(s.root, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// place moves the file, whose bytes have been written, to where those of the
// digest belong, and returns when they are found there after power loss. The
// digest is locked.
func (s *Storage) place(from string, d digest.Digest, f *os.File) error {
	to := s.blobPath(d)
	err := move(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(to), 0o700); err == nil {
			err = errors.Join(move(from, to), atomicfile.SyncDir(s.path(ocispec.ImageBlobsDir)))
		}
	}
	if err == nil {
		err = unsynced(f.Sync())
	}
	if err != nil {
		return err
	}
	return s.syncNames(filepath.Dir(to))
}

// explain gives errors of the disk their kind and a sentence.
func explain(err error) error {
	switch {
	case err == nil || fault.KindOf(err) != fault.Internal:
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.New(fault.Unavailable, "the disk of the registry is full: make room or collect what is not needed (%w)", err)
	case errors.Is(err, unix.EROFS), errors.Is(err, berrors.ErrDatabaseReadOnly):
		return fault.New(fault.Unavailable, "the disk of the registry can only be read: mount it for writing (%w)", err)
	case errors.Is(err, unix.EIO), errors.Is(err, errUnsynced):
		return fault.New(fault.Unavailable, "the disk of the registry fails: see the kernel's log (%w)", err)
	}
	return err
}

// migrations lead from each version of registry.db and uploads to the next; the
// present one is their number. Each runs in the transaction that notes it.
var migrations = []func(*bbolt.Tx) error{
	func(tx *bbolt.Tx) error { // 1
		for _, name := range [][]byte{bucketRepos, bucketBytes, bucketMeta} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	},
}

type format struct {
	Version int `json:"version"`
}

func (s *Storage) migrate() error {
	var f format
	read := func(tx *bbolt.Tx) error {
		if meta := tx.Bucket(bucketMeta); meta != nil {
			return json.Unmarshal(meta.Get(keyFormat), &f)
		}
		return nil
	}
	if err := s.db.View(read); err != nil || f.Version < 0 {
		return fault.New(fault.Invalid, "%s is damaged: put back a copy, or remove it and start again from index.json", s.path(database))
	}
	if f.Version > len(migrations) {
		return fault.New(fault.Invalid, "the registry %s is of format %d and this program knows formats up to %d: start the newer program again", s.root, f.Version, len(migrations))
	}
	if f.Version == len(migrations) {
		return nil
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, step := range migrations[f.Version:] {
			if err := step(tx); err != nil {
				return err
			}
		}
		data, err := json.Marshal(format{len(migrations)})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keyFormat, data)
	})
}

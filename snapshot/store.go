// Package snapshot keeps the unpacked layers of images and the writable
// directories of containers, for overlay mounts:
//
//	layers/<chain hex>/fs/         the files of one layer, never changed
//	layers/<chain hex>/layer.json  its parent, DiffID and size
//	layers/<chain hex>/synced      the files survive power loss; without it Open drops the layer
//	layers/base/fs/                the mount points below all layers (base.go)
//	active/<id>/{upper,work}       one container's changes
//	                               with the topmost layer below in an attribute of <id>/
//	spare/                         such pairs of directories, waiting for a container
//	new/                           layers being unpacked; emptied by Open
//	trash/                         what was removed and is being deleted
//
// A layer is known by its chain ID (OCI image specification, config.md). It is
// unpacked in new/, gets its place by rename(2) when the DiffID was right, and
// is shared by all images that have it. Removing renames into trash/; a worker
// deletes there, and Open resumes what a crash left.
package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// Store is one directory of layers and containers' changes, used by one
// process at a time.
type Store struct {
	root   string
	base   layer
	trash  *trash
	spares *spares
	names  atomic.Uint64 // for names in new/ and trash/

	placing  sync.Mutex // layers/ changes; held before mu, which nobody holds while he waits for the disk
	syncing  sync.Mutex // held before mu
	mu       sync.Mutex
	layers   map[digest.Digest]*layer
	unsynced []digest.Digest
	active   map[string]digest.Digest // container ID -> its topmost layer
	damaged  map[string]error         // container ID -> why its topmost layer is not known
}

// layerAttribute of a container's directory holds the hexadecimal chain ID, or
// noLayer. An attribute costs no inode, and comes into its place by the same
// rename as the directory. Overlay needs the trusted ones anyway.
const (
	layerAttribute = "trusted.tare.layer"
	noLayer        = "empty"
)

// layer is what is known of layers/<chain>/.
type layer struct {
	Parent digest.Digest `json:"parent,omitempty"` // chain ID of the layer below
	DiffID digest.Digest `json:"diffID"`
	Size   int64         `json:"size"` // bytes on disk, whole blocks

	path     string // of fs/
	unsynced bool   // power loss may take it yet
	opaque   bool   // nothing of the layers below is seen; the kernel looks at no root for it
	mode     uint32 // of the root directory, permission bits
	uid, gid int
}

// Mount is what an overlay mount of a container's root needs. All paths are
// absolute and Lower, topmost first, is never empty.
type Mount struct {
	Lower       []string
	Upper, Work string
}

// Open opens the store at root, making it when it is missing, and begins to
// delete what was left half done.
func Open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	s := &Store{root: root, layers: map[digest.Digest]*layer{}, active: map[string]digest.Digest{}, damaged: map[string]error{}}
	for _, dir := range []string{"layers/base/fs", "active", "new", "spare", "trash"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(root, 0o700); err != nil {
		return nil, err
	}
	s.base.path = s.path("layers/base/fs")
	if err := errors.Join(makeBase(s.base.path), s.base.stat()); err != nil {
		return nil, err
	}
	s.trash = newTrash(s.path("trash"))
	if err := errors.Join(s.readLayers(), s.readActive(), s.dropNew()); err != nil {
		s.trash.close()
		return nil, err
	}
	if err := s.trash.resume(); err != nil {
		s.trash.close()
		return nil, err
	}
	if s.spares, err = newSpares(s.path("spare"), s.makePair); err != nil {
		s.trash.close()
		return nil, err
	}
	return s, nil
}

// Close waits for the deletion that is under way; what remains in trash/ is
// for the next Open.
func (s *Store) Close() error {
	s.spares.close()
	s.trash.close()
	return nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

func (s *Store) layerPath(chain digest.Digest) string { return s.path("layers", chain.Encoded()) }

// unique returns a path in dir that nobody has used, no earlier process either.
func (s *Store) unique(dir, name string) string {
	return s.path(dir, name+"."+strconv.FormatInt(time.Now().UnixNano(), 36)+"."+strconv.FormatUint(s.names.Add(1), 36))
}

func (l *layer) stat() error {
	var st unix.Stat_t
	if err := unix.Stat(l.path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: l.path, Err: err}
	}
	l.mode, l.uid, l.gid = st.Mode&0o7777, int(st.Uid), int(st.Gid)
	l.opaque = opaque(unix.AT_FDCWD, l.path)
	return nil
}

// readLayers learns the layers on disk. One that is not whole, or has lost a
// layer below, is thrown away: its blob makes it again.
func (s *Store) readLayers() error {
	entries, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "base" {
			continue
		}
		if l, err := readLayer(s.path("layers", e.Name())); err == nil {
			s.layers[digest.NewDigestFromEncoded(digest.SHA256, e.Name())] = l
		} else if err := s.discard(s.path("layers", e.Name())); err != nil {
			return err
		}
	}
	for lost := true; lost; {
		lost = false
		for chain, l := range s.layers {
			if l.Parent != "" && s.layers[l.Parent] == nil {
				lost = true
				delete(s.layers, chain)
				if err := s.discard(s.layerPath(chain)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func readLayer(dir string) (*layer, error) {
	if _, err := os.Lstat(filepath.Join(dir, "synced")); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, "layer.json"))
	if err != nil {
		return nil, err
	}
	l := &layer{path: filepath.Join(dir, "fs")}
	if err := json.Unmarshal(data, l); err != nil {
		return nil, err
	}
	return l, l.stat()
}

// readActive learns what containers have here. A directory whose attribute
// cannot be read may be all that somebody has of a container's data, in a copy
// that was made without attributes for one: who knows the containers decides.
func (s *Store) readActive() error {
	entries, err := os.ReadDir(s.path("active"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		buf := make([]byte, 128)
		n, err := unix.Lgetxattr(s.path("active", e.Name()), layerAttribute, buf)
		if err != nil {
			s.damaged[e.Name()] = &fs.PathError{Op: "getxattr " + layerAttribute, Path: s.path("active", e.Name()), Err: err}
			continue
		}
		s.active[e.Name()] = chainOf(string(buf[:n]))
	}
	return nil
}

func chainOf(name string) digest.Digest {
	if name == noLayer {
		return ""
	}
	return digest.NewDigestFromEncoded(digest.SHA256, name)
}

func (s *Store) dropNew() error {
	entries, err := os.ReadDir(s.path("new"))
	for _, e := range entries {
		err = errors.Join(err, s.discard(s.path("new", e.Name())))
	}
	return err
}

// discard renames what is at path away at once and has it deleted in the
// background.
func (s *Store) discard(path string) error {
	to := s.unique("trash", filepath.Base(path))
	if err := os.Rename(path, to); err != nil {
		return err
	}
	s.trash.add(to)
	return nil
}

// lookup returns the layer of the chain ID, "" being the base.
func (s *Store) lookupLocked(chain digest.Digest) (*layer, error) {
	if chain == "" {
		return &s.base, nil
	}
	if l := s.layers[chain]; l != nil {
		return l, nil
	}
	return nil, fault.New(fault.NotFound, "layer %s is not unpacked", chain)
}

// rootLocked lists the directories of a container's root below its own,
// topmost first: the chain's, and the base.
func (s *Store) rootLocked(chain digest.Digest) ([]string, error) {
	lower, err := s.lowerLocked(chain)
	return append(lower, s.base.path), err
}

// lowerLocked lists the directories of a chain, topmost first.
func (s *Store) lowerLocked(chain digest.Digest) ([]string, error) {
	var lower []string
	for chain != "" {
		l, err := s.lookupLocked(chain)
		if err != nil {
			return nil, err
		}
		lower = append(lower, l.path)
		if l.opaque {
			break
		}
		chain = l.Parent
	}
	return lower, nil
}

// Has tells whether the layer is unpacked.
func (s *Store) Has(chain digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.lookupLocked(chain)
	return err == nil
}

// Size is what the layer alone takes on disk, 0 when it is not unpacked.
func (s *Store) Size(chain digest.Digest) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.layers[chain]; l != nil {
		return l.Size
	}
	return 0
}

// SyncChain returns when the layer and those below it survive power loss. It
// waits for nothing when they do already, whatever else is being unpacked.
func (s *Store) SyncChain(chain digest.Digest) error {
	s.mu.Lock()
	unsynced := false
	for l := s.layers[chain]; l != nil; l = s.layers[l.Parent] {
		unsynced = unsynced || l.unsynced
	}
	s.mu.Unlock()
	if !unsynced {
		return nil
	}
	return s.Sync()
}

// Sync returns when the layers unpacked so far survive power loss.
func (s *Store) Sync() error {
	// One after the other: who finds nothing pending must know it is done.
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	pending := s.unsynced
	s.unsynced = nil
	s.mu.Unlock()
	if len(pending) == 0 {
		return nil
	}
	err := s.sync(pending)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.unsynced = append(s.unsynced, pending...)
		return err
	}
	for _, chain := range pending {
		if l := s.layers[chain]; l != nil {
			l.unsynced = false
		}
	}
	return nil
}

func (s *Store) sync(pending []digest.Digest) error {
	d, err := os.Open(s.root)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("cannot sync the layers: %w", err)
	}
	for _, chain := range pending {
		err := os.WriteFile(filepath.Join(s.layerPath(chain), "synced"), nil, 0o644)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return err
		}
	}
	// The marks themselves: a container that is created next relies on them.
	return unix.Syncfs(int(d.Fd()))
}

// Package snapshot keeps the unpacked layers of images and the writable trees
// of containers. A driver (driver.go) says how: overlay keeps the files of each
// layer apart, for the kernel to stack; with btrfs, a subvolume each, and vfs, a
// copy each, a tree holds what the layers below it have, too.
//
//	store.json                     the driver and the version of the layout (format.go)
//	layers/<chain hex>/fs/         the tree of one layer, never changed
//	layers/<chain hex>/layer.json  its parent, DiffID and size
//	layers/<chain hex>/synced      the files survive power loss; without it Open drops the layer,
//	layers/<chain hex>/boot        unless it is whole until the end of the boot that this names
//	layers/base/fs/                the mount points below all layers (base.go)
//	active/<id>/{upper,work}       one container's changes (overlay), or
//	active/<id>/fs/                all its files (btrfs, vfs)
//	                               with the topmost layer below in an attribute of <id>/,
//	                               or in <id>/layer where there are no attributes
//	spare/                         pairs of upper and work, waiting for a container
//	empty/                         what it says
//	pinned                         chains that stay though nothing here needs them, a line each (pin.go)
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
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/bootid"
	"github.com/tarehq/tare/internal/spread"
	"golang.org/x/sys/unix"
)

// Store is one directory of layers and containers' changes, used by one
// process at a time.
type Store struct {
	root   string
	name   string // of the driver, as ParseDriver gives it
	boot   string // the machine's
	driver driver
	base   layer
	trash  *trash
	names  atomic.Uint64 // for names in new/ and trash/

	placing  sync.Mutex // layers/ changes; held before mu, which nobody holds while he waits for the disk
	syncing  sync.Mutex // held before mu
	pinning  sync.Mutex // held before mu
	mu       sync.Mutex
	layers   map[digest.Digest]*layer
	unsynced []digest.Digest
	active   map[string]digest.Digest // container ID -> its topmost layer
	pinned   []digest.Digest          // chains that no sweep takes
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
	Size   int64         `json:"size"`             // bytes on disk, whole blocks
	Blob   int64         `json:"blob,omitempty"`   // of one that was made here, bytes of the archive that its changes make
	Latest int64         `json:"latest,omitempty"` // and the bound of times in it, in seconds since 1970

	path     string // of fs/
	unsynced bool   // power loss may take it yet,
	kept     bool   // but not the end of this process
	opaque   bool   // nothing of the layers below is seen; the kernel looks at no root for it
	mode     uint32 // of the root directory, permission bits
	uid, gid int
}

// Mount says how a container's root, or an image's, comes to be: as an overlay
// mount, or as the tree Dir, bound. All paths are absolute.
type Mount struct {
	Dir string // the whole tree; else Lower is not empty

	Lower       []string // topmost first
	Upper, Work string   // both empty without a writable layer

	ReadOnly bool // the mount must refuse all writing
}

// Trees lists the directories that make up the root when they are stacked,
// topmost first.
func (m Mount) Trees() []string {
	switch {
	case m.Dir != "":
		return []string{m.Dir}
	case m.Upper != "":
		return append([]string{m.Upper}, m.Lower...)
	}
	return m.Lower
}

// Open opens the store at root with the driver, Overlay, Btrfs or VFS, making it
// when it is missing, and begins to delete what was left half done. It is
// fault.Invalid when the store is another driver's or of a later format, or the
// file system is none for the driver.
func Open(root, driver string) (*Store, error) {
	name, err := ParseDriver(driver)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	s := &Store{root: root, name: name, layers: map[digest.Digest]*layer{}, active: map[string]digest.Digest{}, damaged: map[string]error{}}
	s.driver = newDriver(s, name)
	if s.boot, err = bootid.Now(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(root, 0o700); err != nil {
		return nil, err
	}
	fresh, err := s.checkFormat()
	if err != nil {
		return nil, err
	}
	if err := s.driver.check(fresh); err != nil {
		return nil, err
	}
	if err := s.fill(fresh); err != nil {
		return nil, err
	}
	return s, nil
}

// fill makes the directories that are missing and reads what is in them.
func (s *Store) fill(fresh bool) error {
	if fresh { // before all else: without the file it would be an overlay's
		if err := s.writeFormat(); err != nil {
			return err
		}
	}
	for _, dir := range []string{"layers/base/fs", "active", "empty", "new", "trash"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return err
		}
	}
	spread.Children(s.path("active"))
	s.base.path = s.path("layers/base/fs")
	if err := errors.Join(makeBase(s.base.path), s.base.stat()); err != nil {
		return err
	}
	s.trash = newTrash(s.path("trash"), s.driver.remove)
	err := errors.Join(s.readLayers(), s.readActive(), s.readPinned(), s.dropNew())
	if err == nil {
		err = s.trash.resume()
	}
	if err == nil {
		err = s.driver.start()
	}
	if err != nil {
		s.trash.close()
	}
	return err
}

// Close waits for the deletion that is under way; what remains in trash/ is
// for the next Open.
func (s *Store) Close() error {
	s.driver.close()
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
		if l, err := s.readLayer(s.path("layers", e.Name())); err == nil {
			chain := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
			if s.layers[chain] = l; l.unsynced {
				s.unsynced = append(s.unsynced, chain)
			}
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

func (s *Store) readLayer(dir string) (*layer, error) {
	kept := false
	if _, err := os.Lstat(filepath.Join(dir, "synced")); err != nil {
		boot, e := os.ReadFile(filepath.Join(dir, "boot"))
		if kept = e == nil && string(boot) == s.boot; !kept {
			return nil, err
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "layer.json"))
	if err != nil {
		return nil, err
	}
	l := &layer{path: filepath.Join(dir, "fs"), unsynced: kept, kept: kept}
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
		name, err := readTop(s.path("active", e.Name()))
		if err != nil {
			s.damaged[e.Name()] = err
			continue
		}
		s.active[e.Name()] = chainOf(name)
	}
	return nil
}

// layerFile of a container's directory stands in for layerAttribute on file
// systems that know no attributes.
const layerFile = "layer"

// readTop reads the name of the topmost layer below a container.
func readTop(dir string) (string, error) {
	buf := make([]byte, 128)
	n, err := unix.Lgetxattr(dir, layerAttribute, buf)
	if err == nil {
		return string(buf[:n]), nil
	}
	if data, fileErr := os.ReadFile(filepath.Join(dir, layerFile)); fileErr == nil && len(data) > 0 {
		return string(data), nil
	}
	return "", &fs.PathError{Op: "getxattr " + layerAttribute, Path: dir, Err: err}
}

// writeTop writes it.
func writeTop(dir, name string) error {
	err := unix.Lsetxattr(dir, layerAttribute, []byte(name), 0)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
		return atomicfile.WriteSync(filepath.Join(dir, layerFile), []byte(name), 0o600)
	}
	if err != nil {
		return &fs.PathError{Op: "setxattr " + layerAttribute, Path: dir, Err: err}
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

// lowerLocked lists the trees of a chain, topmost first.
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

// SyncChain returns when the layer and those below it survive the end of this
// process: those that were made here do at once, others once they survive power
// loss. It waits for nothing when they do already, whatever else is being unpacked.
func (s *Store) SyncChain(chain digest.Digest) error {
	s.mu.Lock()
	unsynced := false
	for l := s.layers[chain]; l != nil; l = s.layers[l.Parent] {
		unsynced = unsynced || l.unsynced && !l.kept
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

package snapshot

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// Adopt makes a layer of what a container has beyond its chain, by a rename:
// its files become the layer's own. diffID is that of what Changes writes, size
// the bytes of that, latest, unless zero, the bound of times in it: LayerChanges writes the same
// whenever it is wanted (see Made). The container has nothing here afterwards; nothing may
// be mounted from it. A layer that is there already stays. After an error the
// container has what it had. Only overlay keeps changes apart: with the other
// drivers it is fault.NotImplemented, and the layer must be unpacked.
func (s *Store) Adopt(id string, diffID digest.Digest, size int64, latest time.Time) (digest.Digest, error) {
	m, err := s.Mount(id)
	if err != nil {
		return "", err
	}
	tree := m.Upper
	if !s.Adopts() {
		return "", fault.New(fault.NotImplemented, "the storage driver %s keeps whole trees, and no changes that could become a layer", s.name)
	}
	s.mu.Lock()
	parent := s.active[id]
	s.mu.Unlock()
	chain := ChainID(parent, diffID)
	if chain.Algorithm() != digest.SHA256 {
		return "", fault.New(fault.NotImplemented, "layers with the digest algorithm %s are not supported", chain.Algorithm())
	}
	if s.Has(chain) {
		return chain, s.Remove(id)
	}
	u := &Unpacking{store: s, dir: s.unique("new", "layer"), layer: layer{Parent: parent, DiffID: diffID, Size: size, Blob: size}}
	if !latest.IsZero() {
		u.layer.Latest = latest.Unix()
	}
	defer u.Close()
	if err := os.Mkdir(u.dir, 0o755); err != nil {
		return "", err
	}
	own := filepath.Join(u.dir, "fs")
	if err := os.Rename(tree, own); err != nil {
		return "", err
	}
	u.stats.Root = true // the kernel gave each directory its attributes when it copied it up
	u.layer.kept = true
	err = errors.Join(keepLinks(filepath.Join(filepath.Dir(tree), LinksName), filepath.Join(u.dir, LinksName)), s.keepRootTime(own, parent), os.WriteFile(filepath.Join(u.dir, "boot"), []byte(s.boot), 0o644))
	if err == nil {
		err = u.finish()
	}
	if err == nil {
		err = u.place(chain)
	}
	if err != nil {
		return "", errors.Join(err, os.Rename(own, tree))
	}
	return chain, s.Remove(id)
}

// LinksName is a file beside a tree, and then beside its layer: the inodes, eight
// bytes each, little-endian, of the tree's files that are linked from elsewhere. What
// is in those never changes.
const LinksName = "links"

// ReadLinks adds the inodes that the file LinksName beside a tree lists, if there is one.
func ReadLinks(tree string, linked map[uint64]bool) error {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(tree), LinksName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for ; len(data) >= 8; data = data[8:] {
		linked[binary.LittleEndian.Uint64(data)] = true
	}
	return err
}

func keepLinks(from, to string) error {
	if err := os.Rename(from, to); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Adopts tells whether Adopt can do so.
func (s *Store) Adopts() bool { return s.name == Overlay }

// Made finds a layer with the DiffID that Adopt made, and how many bytes the
// archive of its changes has, with times up to latest unless that is zero.
func (s *Store) Made(diffID digest.Digest) (chain digest.Digest, size int64, latest time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for chain, l := range s.layers {
		if l.DiffID == diffID && l.Blob > 0 {
			if l.Latest != 0 {
				latest = time.Unix(l.Latest, 0)
			}
			return chain, l.Blob, latest, true
		}
	}
	return "", 0, time.Time{}, false
}

// keepRootTime gives the root of a layer the time that the root below has: what
// came into it, or went, is not what a layer's archive tells of its root.
func (s *Store) keepRootTime(own string, parent digest.Digest) error {
	s.mu.Lock()
	below, err := s.lookupLocked(parent)
	s.mu.Unlock()
	if err != nil || parent == "" {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(below.path, &st); err != nil {
		return pathError("stat", below.path, err)
	}
	return pathError("utimensat", own, setTimes(unix.AT_FDCWD, own, st.Atim, st.Mtim))
}

package build

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/atomicfile"
)

// sums remembers what clients' files hold, so that a file that did not change is
// not read again: <root>/sums, which a cache may lose. Those files are the shelf's
// own: a changed one is another file, put in its place, and never written to.
type sums struct {
	path string

	mu    sync.Mutex
	known map[identity][sha256.Size]byte
	fresh bool // some are not on disk
}

// identity tells files apart, and one from what it was.
type identity struct {
	Device, Inode           uint64
	Size, Changed, Modified int64 // bytes; ns since 1970
}

// maxSums bounds what is remembered: each takes about 150 bytes of memory.
const maxSums = 100_000

const sumSize = 40 + sha256.Size // on disk

func openSums(path string) *sums {
	s := &sums{path: path, known: map[identity][sha256.Size]byte{}}
	data, err := os.ReadFile(path)
	if err != nil || len(data)%sumSize != sha256.Size {
		return s
	}
	records, seal := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if sha256.Sum256(records) != [sha256.Size]byte(seal) { // torn by a power loss
		return s
	}
	for ; len(records) > 0; records = records[sumSize:] {
		n := func(i int) uint64 { return binary.LittleEndian.Uint64(records[8*i:]) }
		s.known[identity{n(0), n(1), int64(n(2)), int64(n(3)), int64(n(4))}] = [sha256.Size]byte(records[40:])
	}
	return s
}

// save writes what is new to disk.
func (s *sums) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.fresh {
		return nil
	}
	data := make([]byte, 0, len(s.known)*sumSize+sha256.Size)
	for id, sum := range s.known {
		for _, n := range []uint64{id.Device, id.Inode, uint64(id.Size), uint64(id.Changed), uint64(id.Modified)} {
			data = binary.LittleEndian.AppendUint64(data, n)
		}
		data = append(data, sum[:]...)
	}
	seal := sha256.Sum256(data)
	s.fresh = false
	return atomicfile.Write(s.path, append(data, seal[:]...), 0o600)
}

func (s *sums) find(id identity) ([sha256.Size]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum, ok := s.known[id]
	return sum, ok
}

func (s *sums) add(id identity, sum [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxSums { // most are of files that have gone
		clear(s.known)
	}
	s.known[id], s.fresh = sum, true
}

// follow knows a file again that has one link more.
func (s *sums) follow(f shelved) {
	var now unix.Stat_t
	if sum, ok := s.find(identify(&f.st)); ok && unix.Lstat(f.path, &now) == nil && now.Ino == f.st.Ino {
		s.add(identify(&now), sum)
	}
}

func identify(st *unix.Stat_t) identity {
	return identity{uint64(st.Dev), st.Ino, st.Size, st.Ctim.Nano(), st.Mtim.Nano()}
}

// hasher hashes trees. With sums their files are ours, and known ones are not read.
type hasher struct {
	hash.Hash
	sums *sums
}

// file hashes what a regular file holds.
func (h *hasher) file(f *os.File, st *unix.Stat_t) error {
	id := identify(st)
	if h.sums != nil {
		if sum, ok := h.sums.find(id); ok {
			h.Write(sum[:])
			return nil
		}
	}
	r, err := os.Open(fdPath(f)) // a regular file: nobody waits at its other end
	if err != nil {
		return err
	}
	defer r.Close()
	own := sha256.New()
	if _, err := io.CopyBuffer(own, struct{ io.Reader }{r}, make([]byte, min(max(st.Size, 512), 256<<10))); err != nil {
		return err
	}
	sum := [sha256.Size]byte(own.Sum(nil))
	h.Write(sum[:])
	if h.sums != nil {
		h.sums.add(id, sum)
	}
	return nil
}

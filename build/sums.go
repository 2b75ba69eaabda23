package build

import (
	"crypto/sha256"
	"encoding/binary"
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
	known map[identity]sum
	fresh bool // some are not on disk
}

// sum is what a file holds.
type sum struct {
	content [sha256.Size]byte
	bare    bool // it has no extended attributes
}

// identity tells files apart, and one from what it was.
type identity struct {
	Device, Inode        uint64
	Size, Born, Modified int64 // bytes; ns since 1970
}

// maxSums bounds what is remembered: each takes about 150 bytes of memory.
const maxSums = 100_000

const sumSize = 40 + sha256.Size + 1 // on disk

func openSums(path string) *sums {
	s := &sums{path: path, known: map[identity]sum{}}
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
		s.known[identity{n(0), n(1), int64(n(2)), int64(n(3)), int64(n(4))}] = sum{[sha256.Size]byte(records[40:]), records[sumSize-1] == 1}
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
		for _, n := range []uint64{id.Device, id.Inode, uint64(id.Size), uint64(id.Born), uint64(id.Modified)} {
			data = binary.LittleEndian.AppendUint64(data, n)
		}
		data = append(data, sum.content[:]...)
		bare := byte(0)
		if sum.bare {
			bare = 1
		}
		data = append(data, bare)
	}
	seal := sha256.Sum256(data)
	s.fresh = false
	return atomicfile.Write(s.path, append(data, seal[:]...), 0o600)
}

func (s *sums) find(id identity) (sum, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum, ok := s.known[id]
	return sum, ok
}

func (s *sums) add(id identity, sum sum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxSums { // most are of files that have gone
		clear(s.known)
	}
	s.known[id], s.fresh = sum, true
}

// identify tells what file it is: by when it was born, which no call sets. Links that
// come and go do not change that.
func identify(x *unix.Statx_t) identity {
	when := x.Btime
	if x.Mask&unix.STATX_BTIME == 0 {
		when = x.Ctime
	}
	return identity{unix.Mkdev(x.Dev_major, x.Dev_minor), x.Ino, int64(x.Size), when.Sec*1e9 + int64(when.Nsec), x.Mtime.Sec*1e9 + int64(x.Mtime.Nsec)}
}

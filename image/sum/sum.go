// Package sum tells the digest of a tree's archive, of which nothing is kept: beside
// its reading, and without reading what it knows of files that never change.
package sum

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// sumChunk is how much is hashed at a time while more is read, in bytes, sumChunks how
// many of those there are, and sumBatch how many are given back at once: who reads is
// faster than who hashes, and to wake it for each is time in which nothing is hashed.
const (
	sumChunk  = 256 << 10
	sumChunks = 8
	sumBatch  = sumChunks / 2
)

// Sum hashes the archive that is written to it.
type Sum struct {
	hash   hash.Hash
	size   int64
	known  *States
	linked map[uint64]bool // inodes of files that never change

	chunk []byte      // that is being filled
	full  chan []byte // nil until there is more than one
	free  chan []byte
	done  chan struct{}
}

// New begins a sum. linked are the inodes of files that never change, of which known
// is added to.
func New(known *States, linked map[uint64]bool) *Sum {
	return &Sum{hash: sha256.New(), known: known, linked: linked}
}

// Write takes a part of the archive; it never fails.
func (s *Sum) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	if s.full == nil {
		if s.size < sumChunk {
			return s.hash.Write(p)
		}
		s.begin()
	}
	n := len(p)
	for len(p) > 0 {
		k := copy(s.chunk[len(s.chunk):cap(s.chunk)], p)
		s.chunk, p = s.chunk[:len(s.chunk)+k], p[k:]
		if len(s.chunk) == cap(s.chunk) {
			s.full <- s.chunk
			s.chunk = <-s.free
		}
	}
	return n, nil
}

// begin has what is written hashed by another goroutine, which Close awaits.
func (s *Sum) begin() {
	s.full, s.free, s.done = make(chan []byte, sumChunks), make(chan []byte, sumChunks), make(chan struct{})
	for range sumChunks - 1 {
		s.free <- make([]byte, 0, sumChunk)
	}
	s.chunk = make([]byte, 0, sumChunk)
	go s.run()
}

// run hashes what is full, and gives it back when that are many, or there is no more.
func (s *Sum) run() {
	defer close(s.done)
	hashed := make([][]byte, 0, sumBatch)
	for chunk := range s.full {
		s.hash.Write(chunk) // never fails
		if hashed = append(hashed, chunk[:0]); len(hashed) < sumBatch && len(s.full) > 0 {
			continue
		}
		for _, chunk := range hashed {
			s.free <- chunk
		}
		hashed = hashed[:0]
	}
}

// read hashes what a file holds; what it has lost meanwhile are zeros.
func (s *Sum) read(ctx context.Context, file int, size int64) error {
	if s.full == nil {
		s.begin()
	}
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		room := s.chunk[len(s.chunk):cap(s.chunk)]
		room = room[:min(int64(len(room)), size-at)]
		n, err := unix.Pread(file, room, at)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("read", err)
		case n == 0:
			n = len(room)
			clear(room)
		}
		at += int64(n)
		s.size += int64(n)
		s.chunk = s.chunk[:len(s.chunk)+n]
		if len(s.chunk) == cap(s.chunk) {
			s.full <- s.chunk
			s.chunk = <-s.free
		}
	}
	return nil
}

// settle waits until all that was written is hashed.
func (s *Sum) settle() {
	if s.full == nil {
		return
	}
	s.full <- s.chunk
	held := make([][]byte, sumChunks)
	for i := range held {
		held[i] = <-s.free
	}
	s.chunk = held[0]
	for _, chunk := range held[1:] {
		s.free <- chunk
	}
}

// Close tells the digest of what was written, and its size in bytes.
func (s *Sum) Close() (digest.Digest, int64) {
	if s.full != nil {
		s.full <- s.chunk
		close(s.full)
		<-s.done
	}
	return digest.NewDigest(digest.SHA256, s.hash), s.size
}

// Content hashes what is in a large file. Of one that never changes the state of the hash
// behind it is remembered for the state before it.
func (s *Sum) Content(ctx context.Context, file int, st *unix.Stat_t, write func() error) error {
	if st.Blocks*512 >= st.Size { // without holes, it comes in fewer steps
		write = func() error { return s.read(ctx, file, st.Size) }
	}
	if !s.linked[st.Ino] {
		return write()
	}
	s.settle()
	key, ok := midstateKey(s.hash, file, st)
	if !ok {
		return write()
	}
	if after := s.known.find(key); after != nil {
		s.size += st.Size
		return s.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(after)
	}
	if err := write(); err != nil {
		return err
	}
	s.settle()
	after, err := s.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err == nil {
		s.known.add(key, after)
	}
	return err
}

// States are those of a hash, by those before a file that never changes and what
// file it is. They are forgotten with the process.
type States struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte][]byte
}

// maxMidstates bounds them: each takes some 250 bytes.
const maxMidstates = 16_000

// midstateKey names a state and the file that follows. A file is known by when it was
// born, which no call sets: its inode's number may be another file's later. Without
// that time nothing is known.
func midstateKey(h hash.Hash, file int, st *unix.Stat_t) (key [sha256.Size]byte, ok bool) {
	var x unix.Statx_t
	const wanted = unix.STATX_BTIME | unix.STATX_INO | unix.STATX_SIZE | unix.STATX_MTIME
	if unix.Statx(file, "", unix.AT_EMPTY_PATH, wanted, &x) != nil || x.Mask&wanted != wanted || x.Ino != st.Ino || x.Size != uint64(st.Size) {
		return key, false
	}
	before, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	for _, n := range []uint64{st.Dev, x.Ino, x.Size, uint64(x.Mtime.Sec), uint64(x.Mtime.Nsec), uint64(x.Btime.Sec), uint64(x.Btime.Nsec)} {
		before = binary.LittleEndian.AppendUint64(before, n)
	}
	return sha256.Sum256(before), err == nil
}

func (m *States) find(key [sha256.Size]byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[key]
}

func (m *States) add(key [sha256.Size]byte, state []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= maxMidstates {
		m.known = map[[sha256.Size]byte][]byte{}
	}
	m.known[key] = state
}

package snapshot

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// maxSpares is how many pairs of directories wait for containers. Making an
// inode takes ext4 tens of microseconds at best and half a millisecond after
// many were deleted (it looks at each one that is younger than some seconds
// when there is no journal), so it is done beforehand.
const maxSpares = 8

// spares keeps pristine directories with an upper and a work directory in
// them. They are always new: one that a container had, or that was meant for
// one when the daemon died, is never given to another.
type spares struct {
	dir  string
	make func() (string, error) // returns a path from where it can be renamed
	done chan struct{}
	wake chan struct{}

	mu     sync.Mutex
	ready  []string
	closed bool
}

func newSpares(dir string, make_ func() (string, error)) (*spares, error) {
	s := &spares{dir: dir, make: make_, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pair := filepath.Join(dir, e.Name())
		if pristine(pair+"/upper") && pristine(pair+"/work") {
			s.ready = append(s.ready, pair)
		} else if err := os.RemoveAll(pair); err != nil {
			return nil, err
		}
	}
	go s.run()
	return s, nil
}

// pristine tells whether the directory is as makePair makes it. What power
// loss or the end of the daemon left half done is not.
func pristine(dir string) bool {
	var st unix.Stat_t
	return unix.Lstat(dir, &st) == nil && st.Mode == unix.S_IFDIR|0o700 && st.Uid == 0 && st.Gid == 0
}

// take returns the path of a pair, which the caller renames away, or "".
func (s *spares) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var path string
	if n := len(s.ready); n > 0 {
		path = s.ready[n-1]
		s.ready = s.ready[:n-1]
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return path
}

func (s *spares) run() {
	defer close(s.done)
	for {
		s.mu.Lock()
		closed, wanted := s.closed, len(s.ready) < maxSpares
		s.mu.Unlock()
		if closed {
			return
		}
		// What fails here fails again, and is told, where it is needed.
		if !wanted || !s.add() {
			<-s.wake
		}
	}
}

func (s *spares) add() bool {
	from, err := s.make()
	if err != nil {
		return false
	}
	to := filepath.Join(s.dir, filepath.Base(from))
	if os.Rename(from, to) != nil {
		return false
	}
	s.mu.Lock()
	s.ready = append(s.ready, to)
	s.mu.Unlock()
	return true
}

func (s *spares) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	<-s.done
}

// makePair makes a directory in new/ with an upper and a work directory.
func (s *Store) makePair() (string, error) {
	dir := s.unique("new", "pair")
	for _, d := range []string{dir, dir + "/work", dir + "/upper"} {
		if err := unix.Mkdir(d, 0o700); err != nil {
			err = &fs.PathError{Op: "mkdir", Path: d, Err: err}
			os.RemoveAll(dir)
			return "", err
		}
	}
	return dir, nil
}

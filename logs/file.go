package logs

import (
	"bufio"
	"bytes"
	"errors"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Position is a place in a log, between two records. It is found again after
// rotation and compression; where its file is gone, or was cleared, by its
// time. The zero value is the beginning.
type Position struct {
	Inode  uint64 `json:",omitempty"` // of the file
	Head   uint64 `json:",omitempty"` // hash of the file's first line; 0 while it has none
	Offset int64  `json:",omitempty"` // in bytes, of the content before compression
	Time   int64  `json:",omitempty"` // of the record before, nanoseconds since 1970
}

// headSize is how many bytes at most count as a file's first line.
const headSize = 4 << 10

// file is one file of a log, held open.
type file struct {
	f      *os.File
	inode  uint64
	size   int64 // when it was opened
	packed bool
	first  uint64 // the hash, once known

	start int64 // offset in the content where reading begins
	skip  int   // records to pass over from there
	at    int64 // how far f is read, of a plain file
}

// openFiles opens all files of the log at path together, the oldest first,
// compressed ones only if they can be read.
//
// Their names are held meanwhile. Where somebody else holds them and does not
// let go, since he was stopped, they do not change either: then a listing that
// is the same before and after will do.
func openFiles(path string, packed bool) ([]*file, error) {
	for {
		dir, lockErr := lockDir(path, unix.LOCK_SH|unix.LOCK_NB)
		files, steady, err := openListed(path, packed)
		if dir != nil {
			dir.Close()
		}
		if lockErr == nil || err != nil || steady {
			return files, err
		}
		closeFiles(files)
		time.Sleep(time.Millisecond) // who holds them does a few renames
	}
}

// openListed opens the files that there are, and tells whether each still has
// the name that it was opened by, and no other came.
func openListed(path string, packed bool) (files []*file, steady bool, err error) {
	list, err := filesOf(path)
	if err != nil {
		return nil, false, err
	}
	steady = true
	var names []string
	for i, x := range slices.Backward(list) {
		// of a file that is there in both forms the compressed one is not to be trusted
		if x.packed && (!packed || i > 0 && list[i-1].n == x.n) {
			continue
		}
		name := numbered(path, x.n)
		if x.packed {
			name += PackedSuffix
		}
		f, err := openFile(name, x.packed)
		if errors.Is(err, fs.ErrNotExist) {
			steady = false
			continue
		}
		if err != nil {
			closeFiles(files)
			return nil, false, err
		}
		files, names = append(files, f), append(names, name)
	}
	again, err := filesOf(path)
	steady = steady && err == nil && slices.Equal(list, again)
	for i, f := range files {
		st, err := os.Stat(names[i])
		steady = steady && err == nil && inodeOf(st) == f.inode
	}
	return files, steady, nil
}

func openFile(name string, packed bool) (*file, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{f: f, inode: inodeOf(st), size: st.Size(), packed: packed}, nil
}

func inodeOf(st fs.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Ino
	}
	return 0
}

func closeFiles(files []*file) {
	for _, f := range files {
		f.f.Close()
	}
}

// content reads the file's content from its beginning.
func (f *file) content(unpack Unpack) (*bufio.Reader, error) {
	if !f.packed {
		return bufio.NewReaderSize(io.NewSectionReader(f.f, 0, f.size), headSize), nil
	}
	src, err := unpack(io.NewSectionReader(f.f, 0, f.size))
	if err != nil {
		return nil, err
	}
	return bufio.NewReaderSize(src, headSize), nil
}

// head returns the hash of the first line; 0 for none. What cannot be
// decompressed has none.
func (f *file) head(unpack Unpack) uint64 {
	if f.first != 0 {
		return f.first
	}
	var line []byte
	if f.packed {
		if src, err := f.content(unpack); err == nil {
			line, _ = src.Peek(headSize)
		}
	} else {
		buf := make([]byte, headSize)
		n, _ := f.f.ReadAt(buf, 0)
		line = buf[:n]
	}
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i+1]
	} else if len(line) < headSize {
		return 0
	}
	h := fnv.New64a()
	h.Write(line)
	f.first = h.Sum64()
	return f.first
}

// unordered is the attribute of a file before or in which the clock was set
// back: what is in the log up to its end cannot be found by time.
const unordered = "user.tare.unordered"

func markUnordered(f *os.File) error {
	return unix.Fsetxattr(int(f.Fd()), unordered, nil, 0)
}

func isUnordered(f *os.File) bool {
	_, err := unix.Fgetxattr(int(f.Fd()), unordered, nil)
	return err == nil
}

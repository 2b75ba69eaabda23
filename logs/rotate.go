package logs

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PackedSuffix ends the name of a rotated file that was compressed.
const PackedSuffix = ".gz"

// retrySize is by how much a file grows beyond its bound before a rotation
// that failed is tried again.
const retrySize = 64 << 10

// rotate makes the current file path.1 and begins a new one. What cannot be
// rotated now, as on a full disk or while the files are being opened together,
// grows on for a while.
func (w *Writer) rotate() {
	w.limit = w.size + retrySize
	// Not waiting: whoever holds the lock may have been stopped.
	dir, err := lockDir(w.path, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return
	}
	defer dir.Close()
	st, err := w.f.Stat()
	if err != nil {
		return
	}
	if st.Size() < w.o.MaxSize { // it was cleared
		w.size, w.limit, w.torn = st.Size(), w.o.MaxSize, w.torn && st.Size() > 0
		return
	}
	f, err := shift(w.path, w.o.MaxFiles)
	if err != nil {
		return
	}
	w.f.Close()
	w.f, w.size, w.limit, w.torn = f, 0, w.o.MaxSize, false
	if w.o.Rotated != nil {
		w.o.Rotated()
	}
}

// shift moves the files of a log on by one number and returns a new first one.
// The oldest goes first, since it may be what makes room.
func shift(path string, files int) (*os.File, error) {
	last := 1 // the first number that nobody has, or that of the oldest file
	for last < files-1 && taken(numbered(path, last)) {
		last++
	}
	for _, old := range []string{numbered(path, last), numbered(path, last) + PackedSuffix} {
		if files < 2 {
			break
		}
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	fresh := path + ".new"
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o640)
	if err != nil {
		return nil, err
	}
	for n := min(last, files-1) - 1; n >= 0; n-- {
		for _, suffix := range []string{"", PackedSuffix} {
			if n == 0 && suffix != "" {
				continue
			}
			err := os.Rename(numbered(path, n)+suffix, numbered(path, n+1)+suffix)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				f.Close()
				return nil, errors.Join(err, os.Remove(fresh))
			}
		}
	}
	if err := os.Rename(fresh, path); err != nil {
		f.Close()
		return nil, errors.Join(err, os.Remove(fresh))
	}
	return f, nil
}

// taken tells whether there is a file of a name, in either form.
func taken(name string) bool {
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil || unix.Stat(name+PackedSuffix, &st) == nil
}

func numbered(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// number is the reverse of numbered: how old the file of that name is within
// the log of that base name.
func number(base, name string) (n int, packed, ok bool) {
	rest, ok := strings.CutPrefix(name, base)
	if !ok {
		return 0, false, false
	}
	if rest == "" {
		return 0, false, true
	}
	rest, packed = strings.CutSuffix(rest, PackedSuffix)
	digits, ok := strings.CutPrefix(rest, ".")
	if !ok || digits == "" || digits[0] == '0' || strings.Trim(digits, "0123456789") != "" {
		return 0, false, false
	}
	n, err := strconv.Atoi(digits)
	return n, packed, err == nil
}

// lockDir locks the names of the files of a log by flock(2) on their
// directory, until the returned file is closed.
func lockDir(path string, how int) (*os.File, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(dir.Fd()), how)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// Rotated returns the paths of the files that were rotated out of the log at
// path and are not compressed, the newest first.
func Rotated(path string) ([]string, error) {
	list, err := filesOf(path)
	var out []string
	for _, x := range list {
		if x.n > 0 && !x.packed {
			out = append(out, numbered(path, x.n))
		}
	}
	return out, err
}

// lockFiles lists the files of the log at path, whose names stay until the
// returned directory is closed.
func lockFiles(path string) (*os.File, []fileName, error) {
	dir, err := lockDir(path, unix.LOCK_EX)
	if err != nil {
		return nil, nil, err
	}
	list, err := filesOf(path)
	if err != nil {
		dir.Close()
		return nil, nil, err
	}
	return dir, list, nil
}

// Replace puts the file fresh, compressed, in the place of the rotated file
// with the given inode, wherever that is by now; fs.ErrNotExist if it is gone.
func Replace(path string, inode uint64, fresh string) error {
	dir, list, err := lockFiles(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, x := range list {
		name := numbered(path, x.n)
		if st, err := os.Stat(name); x.packed || x.n == 0 || err != nil || inodeOf(st) != inode {
			continue
		}
		if err := keepMark(name, fresh); err != nil {
			return err
		}
		if err := os.Rename(fresh, name+PackedSuffix); err != nil {
			return err
		}
		return os.Remove(name)
	}
	return fs.ErrNotExist
}

// keepMark marks a file as the one that it takes the place of.
func keepMark(old, fresh string) error {
	from, err := os.Open(old)
	if err != nil {
		return err
	}
	defer from.Close()
	if !isUnordered(from) {
		return nil
	}
	to, err := os.Open(fresh)
	if err != nil {
		return err
	}
	defer to.Close()
	return markUnordered(to)
}

// Clear empties the log at path, also while it is written and followed.
func Clear(path string) error {
	dir, list, err := lockFiles(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, x := range list {
		name := numbered(path, x.n)
		switch {
		case x.n == 0: // not removed: the writer goes on with it
			err = os.Truncate(name, 0)
			_ = unix.Removexattr(name, unordered) // mostly there is none
		case x.packed:
			err = os.Remove(name + PackedSuffix)
		default:
			err = os.Remove(name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Size returns how many bytes of disk the log at path takes.
func Size(path string) (total int64) {
	list, _ := filesOf(path) // one that cannot be read takes none
	for _, x := range list {
		name := numbered(path, x.n)
		if x.packed {
			name += PackedSuffix
		}
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil {
			total += st.Blocks * 512
		}
	}
	return total
}

// fileName is one file of a log by its name.
type fileName struct {
	n      int
	packed bool
}

// filesOf lists the files of the log at path, the current one first, a plain
// one before its compressed form.
func filesOf(path string) ([]fileName, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []fileName
	for _, e := range entries {
		if n, packed, ok := number(filepath.Base(path), e.Name()); ok {
			list = append(list, fileName{n, packed})
		}
	}
	slices.SortFunc(list, func(a, b fileName) int {
		if a.n == b.n && b.packed {
			return -1
		}
		return cmp.Compare(a.n, b.n)
	})
	return list, err
}

package archive

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// OpenFile opens a regular file of a tree that may be hostile for reading.
// Links, absolute ones too, lead inside of root. What is no regular file is not
// opened and fs.ErrNotExist.
func OpenFile(root *os.File, name string) (*os.File, error) {
	place, err := resolve(int(root.Fd()), name, unix.O_PATH)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return openPlace(place)
}

// OpenDir opens a directory of such a tree.
func OpenDir(root *os.File, name string) (*os.File, error) {
	fd, err := resolve(int(root.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

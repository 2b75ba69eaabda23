package archive

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

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

// OpenPlace finds something of such a tree without touching it (O_PATH). What is
// found by the last component is the link itself, or with follow what it leads to.
func OpenPlace(root *os.File, name string, follow bool) (*os.File, error) {
	flags := uint64(unix.O_PATH | unix.O_NOFOLLOW)
	if follow {
		flags = unix.O_PATH
	}
	fd, err := resolve(int(root.Fd()), name, flags)
	if err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// MakePlace is OpenPlace with follow for something to be mounted on, which is made
// when it is missing: a directory or an empty file, and the directories above.
func MakePlace(root *os.File, name string, dir bool) (*os.File, error) {
	place, err := OpenPlace(root, name, true)
	if !errors.Is(err, fs.ErrNotExist) {
		return place, err
	}
	above, base := path.Split(strings.TrimRight(name, "/"))
	if base == "" {
		return nil, err
	}
	up, err := MakePlace(root, "/"+above, true)
	if err != nil {
		return nil, err
	}
	defer up.Close()
	if dir {
		err = unix.Mkdirat(int(up.Fd()), base, 0o755)
	} else {
		err = unix.Mknodat(int(up.Fd()), base, unix.S_IFREG|0o644, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "make", Path: name, Err: err}
	}
	return OpenPlace(root, name, true)
}

package confine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
)

const labelName = "security.selinux"

// ofSystem are directories without whose labels a machine does not work. They are
// given to no container, whatever name leads to them; what lies in them may be.
var ofSystem = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib", "/lib64", "/media", "/opt", "/proc",
	"/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log",
}

// Relabel gives files at the path, and all below it, to the container, or to all
// containers. Links in the path lead on, those below it nowhere: containers may be
// changing what is there. A file system without labels is left as it is.
func (l Labels) Relabel(path string, shared bool) error {
	if l.Mount == "" {
		return nil
	}
	label := l.Mount
	if shared {
		context, err := selinux.NewContext(label)
		if err != nil {
			return err
		}
		context["level"] = "s0"
		label = context.Get()
	}
	if err := relabel(path, label); err != nil {
		return fault.New(fault.Internal, "error setting label on mount source '%s': %w", path, err)
	}
	return nil
}

func relabel(path, label string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	fd, err := openat.Open(unix.AT_FDCWD, path, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	top := os.NewFile(uintptr(fd), path)
	defer top.Close()
	st, err := top.Stat()
	if err != nil {
		return err
	}
	for _, dir := range append([]string{os.Getenv("HOME")}, ofSystem...) {
		if of, err := os.Stat(dir); err == nil && os.SameFile(of, st) {
			return fmt.Errorf("SELinux relabeling of %s is not allowed", path)
		}
	}
	if st.IsDir() {
		if err := relabelIn(top, ".", label); err != nil {
			return err
		}
	}
	return set(reach(top), path, label, unix.Getxattr, unix.Setxattr)
}

// relabelIn labels what a directory below the topmost has, what is deepest first.
// It stands on no directory of whose name somebody could make a link meanwhile.
func relabelIn(top *os.File, rel, label string) error {
	fd, err := openat.Open(int(top.Fd()), rel, unix.O_RDONLY|unix.O_DIRECTORY, openat.Beneath|unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // it is gone, or something else by now
	}
	shown := filepath.Join(top.Name(), rel)
	if err != nil {
		return &os.PathError{Op: "open", Path: shown, Err: err}
	}
	dir := os.NewFile(uintptr(fd), shown)
	entries, err := dir.ReadDir(-1)
	for _, e := range entries {
		if err != nil {
			break
		}
		if e.IsDir() {
			err = relabelIn(top, filepath.Join(rel, e.Name()), label)
		}
		if err == nil {
			err = set(reach(dir)+"/"+e.Name(), filepath.Join(shown, e.Name()), label, unix.Lgetxattr, unix.Lsetxattr)
		}
	}
	return errors.Join(err, dir.Close())
}

// reach is a path to what is open, whatever its name is by now.
func reach(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// set labels a file that has another label; shown is its name for who reads an error.
func set(path, shown, label string, get func(path, name string, into []byte) (int, error), put func(path, name string, value []byte, flags int) error) error {
	var is [256]byte
	if n, err := get(path, labelName, is[:]); err == nil && string(bytes.TrimRight(is[:n], "\x00")) == label {
		return nil
	}
	err := put(path, labelName, []byte(label), 0)
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return &os.PathError{Op: "set the label " + label + " of", Path: shown, Err: err}
}

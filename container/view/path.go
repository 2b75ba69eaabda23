package view

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/internal/userns"
)

// Path is a path as a client wrote it. It is seen from the container's root, and
// cleaned before links are followed, as by Docker.
type Path struct {
	Given, clean string
	dir          bool   // ends in / or /., and so must be a directory, by a link too
	Name         string // of the entry in an archive: "." for a directory's content alone
}

// Ask reads what a client wrote.
func Ask(given string) Path {
	a := Path{Given: given, clean: path.Clean("/" + given), dir: strings.HasSuffix(given, "/") || path.Base(given) == "."}
	if a.Name = path.Base(a.clean); path.Base(given) == "." {
		a.Name = "."
	}
	return a
}

// Dir is the path for archive.Options.
func (a Path) Dir() string { return strings.TrimPrefix(a.clean, "/") }

// Place finds what a path leads to.
func (v *View) Place(a Path) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	place, err := archive.OpenPlace(v.root, a.clean, a.dir)
	if err != nil {
		return nil, st, err
	}
	if err = unix.Fstat(int(place.Fd()), &st); err == nil && a.dir && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = &fs.PathError{Op: "lstat", Path: a.Given, Err: unix.ENOTDIR}
	}
	if err != nil {
		place.Close()
		return nil, st, err
	}
	return place, st, nil
}

// Stat tells of a place what Docker does.
func (v *View) Stat(a Path, st *unix.Stat_t) (wire.PathStat, error) {
	s := wire.PathStat{Name: a.Name, Size: st.Size, Mode: fileMode(st.Mode), Mtime: time.Unix(st.Mtim.Unix())}
	if s.Mode&os.ModeSymlink == 0 {
		return s, nil
	}
	root, err := archive.OpenDir(v.root, "/")
	if err != nil {
		return s, err
	}
	defer root.Close()
	target, err := archive.Tree{root}.Real(strings.TrimPrefix(a.clean, "/"))
	s.LinkTarget = "/" + target
	return s, err
}

// fileMode is inode(7)'s mode in the bits of package os, which the API uses.
func fileMode(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	for bit, is := range map[uint32]os.FileMode{unix.S_ISUID: os.ModeSetuid, unix.S_ISGID: os.ModeSetgid, unix.S_ISVTX: os.ModeSticky} {
		if mode&bit != 0 {
			m |= is
		}
	}
	return m | map[uint32]os.FileMode{unix.S_IFDIR: os.ModeDir, unix.S_IFLNK: os.ModeSymlink, unix.S_IFIFO: os.ModeNamedPipe, unix.S_IFSOCK: os.ModeSocket,
		unix.S_IFBLK: os.ModeDevice, unix.S_IFCHR: os.ModeDevice | os.ModeCharDevice}[mode&unix.S_IFMT]
}

// Unpack extracts a tar in the directory of o. Nothing at all counts as an empty one, as for Docker.
func (v *View) Unpack(ctx context.Context, r io.Reader, o archive.Options) error {
	body := bufio.NewReader(r)
	if _, err := body.Peek(1); err == io.EOF {
		return nil
	}
	plain, _, err := compression.Decompress(body)
	if err != nil {
		return err
	}
	defer plain.Close()
	if o.Users == nil {
		_, err = archive.Extract(ctx, v.root, plain, o)
		return err
	}
	thread.Own(func() bool {
		var back func()
		if back, err = userns.Act(o.Users.Root()); err == nil {
			_, err = archive.Extract(ctx, v.root, plain, o)
		}
		back()
		return true
	})
	return err
}

// Writable checks that a path is a directory that can be written to, in Docker's
// words. What counts is the mount that it lies in.
func (v *View) Writable(a Path) error {
	place, err := archive.OpenPlace(v.root, a.clean, true)
	if err != nil {
		return err
	}
	defer place.Close()
	var dir, root unix.Statx_t
	if err := unix.Statx(int(place.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_TYPE|unix.STATX_MNT_ID, &dir); err != nil {
		return err
	}
	if uint32(dir.Mode)&unix.S_IFMT != unix.S_IFDIR {
		return fault.New(fault.Invalid, "extraction point is not a directory")
	}
	var mount unix.Statfs_t
	if err := unix.Fstatfs(int(place.Fd()), &mount); err != nil {
		return err
	}
	if mount.Flags&unix.ST_RDONLY == 0 {
		switch mount.Type {
		case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC:
			return fault.New(fault.Invalid, "%s lies in a file system of the kernel's, which keeps no files", a.Given)
		}
		return nil
	}
	if err := unix.Statx(int(v.root.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &root); err != nil {
		return err
	}
	if dir.Mnt_id == root.Mnt_id {
		return fault.New(fault.Invalid, "container rootfs is marked read-only")
	}
	return fault.New(fault.Invalid, "mounted volume is marked read-only")
}

// Owner looks up the container's user in its own files.
func (v *View) Owner(who string) (*archive.Owner, error) {
	var files [2][]byte
	for i, name := range []string{"/etc/passwd", "/etc/group"} {
		file, err := archive.OpenFile(v.root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[i], err = io.ReadAll(io.LimitReader(file, 4<<20))
		file.Close()
		if err != nil {
			return nil, err
		}
	}
	id, err := spec.User(who, files[0], files[1], nil)
	return &archive.Owner{UID: id.UID, GID: id.GID}, err
}

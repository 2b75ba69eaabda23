package container

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
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/internal/userns"
)

// asked is a path as a client wrote it. It is seen from the container's root, and
// cleaned before links are followed, as by Docker.
type asked struct {
	given, clean string
	dir          bool   // ends in / or /., and so must be a directory, by a link too
	name         string // of the entry in an archive: "." for a directory's content alone
}

func ask(given string) asked {
	a := asked{given: given, clean: path.Clean("/" + given), dir: strings.HasSuffix(given, "/") || path.Base(given) == "."}
	if a.name = path.Base(a.clean); path.Base(given) == "." {
		a.name = "."
	}
	return a
}

// place finds what a path leads to.
func (v *view) place(a asked) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	place, err := archive.OpenPlace(v.root, a.clean, a.dir)
	if err != nil {
		return nil, st, err
	}
	if err = unix.Fstat(int(place.Fd()), &st); err == nil && a.dir && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = &fs.PathError{Op: "lstat", Path: a.given, Err: unix.ENOTDIR}
	}
	if err != nil {
		place.Close()
		return nil, st, err
	}
	return place, st, nil
}

// noFile gives an error of place Docker's words, and its kinds.
func noFile(err error, a asked, container string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "Could not find the file %s in container %s", a.given, container)
	}
	return err
}

// stat tells of a place what Docker does.
func (v *view) stat(a asked, st *unix.Stat_t) (wire.PathStat, error) {
	s := wire.PathStat{Name: a.name, Size: st.Size, Mode: fileMode(st.Mode), Mtime: time.Unix(st.Mtim.Unix())}
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

// Stat tells what a path of a container leads to, running or not.
func (f *Files) Stat(ctx context.Context, nameOrID, given string) (stat wire.PathStat, err error) {
	err = f.at(ctx, nameOrID, given, func(_ Record, v *view, a asked, place *os.File, st *unix.Stat_t) error {
		stat, err = v.stat(a, st)
		return noFile(err, a, nameOrID)
	})
	return stat, err
}

// Archive writes what a path of a container leads to as a tar, whose names begin
// with the last part of the path. begin is told what it is, before anything is
// written, and gives the writer; without it there was no archive.
func (f *Files) Archive(ctx context.Context, nameOrID, given string, begin func(wire.PathStat) (io.Writer, error)) error {
	return f.at(ctx, nameOrID, given, func(r Record, v *view, a asked, place *os.File, st *unix.Stat_t) error {
		stat, err := v.stat(a, st)
		if err != nil {
			return noFile(err, a, nameOrID)
		}
		f.containers.publish(r, events.ActionArchivePath)
		w, err := begin(stat)
		if err != nil {
			return err
		}
		if err := archive.WriteOne(ctx, w, place, a.name, archive.WriteOptions{Seconds: true, Users: r.Users}); err != nil {
			return err
		}
		return f.still(r)
	})
}

// at finds the place of a path for a reader.
func (f *Files) at(ctx context.Context, nameOrID, given string, use func(Record, *view, asked, *os.File, *unix.Stat_t) error) error {
	r, err := f.containers.store.find(nameOrID)
	if err != nil {
		return err
	}
	v, err := f.view(ctx, r, false)
	if err != nil {
		return err
	}
	defer v.close()
	a := ask(given)
	place, st, err := v.place(a)
	if err != nil {
		return noFile(err, a, nameOrID)
	}
	defer place.Close()
	return use(r, v, a, place, &st)
}

// ExtractOptions as in PUT /containers/{id}/archive.
type ExtractOptions struct {
	KeepKinds bool // no directory in the place of something else, nor the other way round
	ToUser    bool // all belongs to the container's user instead of those of the archive
}

// Extract unpacks a tar, compressed or not, in a directory of a container.
func (f *Files) Extract(ctx context.Context, nameOrID, given string, o ExtractOptions, r io.Reader) error {
	record, err := f.containers.store.find(nameOrID)
	if err != nil {
		return err
	}
	v, err := f.view(ctx, record, true)
	if err != nil {
		return err
	}
	defer v.close()
	a := ask(given)
	if err := v.writable(a); err != nil {
		return noFile(err, a, nameOrID)
	}
	options := archive.Options{Whiteouts: archive.NoWhiteouts, Dir: strings.TrimPrefix(a.clean, "/"), KeepKinds: o.KeepKinds, Users: record.Users}
	if o.ToUser && record.Config.User != "" {
		if options.Owner, err = v.user(record.Config.User); err != nil {
			return err
		}
	}
	if err := unpack(ctx, v.root, r, options); err != nil {
		return err
	}
	f.containers.publish(record, events.ActionExtractToDir)
	return nil
}

// unpack extracts a tar. Nothing at all counts as an empty one, as for Docker.
func unpack(ctx context.Context, root *os.File, r io.Reader, o archive.Options) error {
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
		_, err = archive.Extract(ctx, root, plain, o)
		return err
	}
	thread.Own(func() bool {
		var back func()
		if back, err = userns.Act(o.Users.Root()); err == nil {
			_, err = archive.Extract(ctx, root, plain, o)
		}
		back()
		return true
	})
	return err
}

// writable checks that a path is a directory that can be written to, in Docker's
// words. What counts is the mount that it lies in.
func (v *view) writable(a asked) error {
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

// user looks up the container's user in its own files.
func (v *view) user(who string) (*archive.Owner, error) {
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

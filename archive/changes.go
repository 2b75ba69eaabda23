package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ChangeKind is what happened to a path; the numbers are those of the Engine
// API.
type ChangeKind int

// The kinds of changes.
const (
	Modified ChangeKind = iota
	Added
	Deleted
)

// Change is one path that differs, from the root, with a slash in front.
type Change struct {
	Path string
	Kind ChangeKind
}

// Diff compares a tree with the one that it was made from.
type Diff struct {
	Below Tree // as it was
	// Upper, unless nil, is the directory that holds what was changed in an
	// overlay mount over Below, with redirect_dir and metacopy off. Only what it
	// names is looked at. Otherwise Whole is compared with Below.
	Upper *os.File
	Whole Tree
	// Made are the paths from the root, without a slash in front, that the engine
	// makes to mount on: directories, empty files, and links. Links on the way to
	// them are followed. What is new and has
	// nothing in it is no change, nor are the directories that lead to it.
	Made []string
}

// Tree is the tree with its changes.
func (d Diff) Tree() Tree {
	if d.Upper != nil {
		return append(Tree{d.Upper}, d.Below...)
	}
	return d.Whole
}

// Changes calls visit for each change, a directory before what is in it, in
// the order of names. A directory of which something changed counts as modified
// itself, but for the root; of a directory that is gone only itself is told.
// Neither size nor time of a directory count. An error of visit ends it.
func (d Diff) Changes(ctx context.Context, visit func(Change) error) error {
	return d.compare(ctx, func(v difference) error {
		if v.path == "" {
			return nil
		}
		return visit(Change{Path: "/" + v.path, Kind: v.kind})
	}, func(err error) error { return err })
}

// difference is one change as the comparison finds it.
type difference struct {
	path    string // from the root; "" for the root itself
	kind    ChangeKind
	at      int    // the directory that has it, unless it was deleted or is one
	base    string // its name there
	dir     stack  // of a directory, the directory
	emptied bool   // nothing that the directory had before is there any more
	implied bool   // deleted from such a directory
	itself  bool   // a directory that is no mere way to a change
	regular bool   // a regular file
}

// compare calls emit for what differs, and leave before descriptors are closed that emit
// was told of, with the error that ends the comparison or nil.
func (d Diff) compare(ctx context.Context, emit func(difference) error, leave func(error) error) error {
	c := &comparison{ctx: ctx, emit: emit, leave: leave, overlay: d.Upper != nil, made: map[string]bool{}, leads: map[string]bool{}, xattrs: make([]byte, 64<<10)}
	for _, given := range d.Made {
		// As the engine found it: /sbin may be a link to usr/sbin.
		given = strings.TrimPrefix(path.Clean("/"+given), "/")
		name, err := d.Tree().Real(given)
		if err != nil {
			return err
		}
		c.made[name] = true
		c.made[given] = true // it may be a link itself
		for up := path.Dir(name); up != "."; up = path.Dir(up) {
			c.leads[up] = true
		}
	}
	below, err := d.Below.open()
	if err != nil {
		return err
	}
	defer below.close()
	now, err := d.Tree().open()
	if err != nil {
		return err
	}
	defer now.close()
	return c.enter(&pending{difference: difference{dir: now, kind: Modified}}, now, below, false)
}

// enter compares a directory with what it was, nothing if it is new: itself,
// which is new as it differs or else by its attributes, and what is in it.
func (c *comparison) enter(p *pending, now, before stack, differs bool) error {
	if len(now) > 0 && len(before) > 0 {
		same, err := c.sameAttributes(now[0], before[0])
		if err == nil {
			p.emptied, err = emptied(now, before)
		}
		if err != nil {
			return cannotRead(p.path, err)
		}
		differs = !same || p.emptied
	}
	if differs {
		p.itself = true
		if err := c.tell(p); err != nil {
			return err
		}
	}
	return c.directory(p, now, before)
}

// pending is a directory that is told once something in it is.
type pending struct {
	difference
	up   *pending
	told bool
}

// comparison is one comparing of two trees.
type comparison struct {
	ctx         context.Context
	emit        func(difference) error
	leave       func(error) error
	overlay     bool            // names that the topmost layer has not are the same
	made, leads map[string]bool // paths that the engine made, and directories on the way to them
	xattrs      []byte
	open        openDirs
}

// tell emits a directory that differs, after those that lead to it.
func (c *comparison) tell(p *pending) error {
	if p == nil || p.told {
		return nil
	}
	if err := c.tell(p.up); err != nil {
		return err
	}
	p.told = true
	return c.emit(p.difference)
}

// directory compares what is in a directory now with what was in it. Nothing
// was in one that is new.
func (c *comparison) directory(dir *pending, now, before stack) error {
	return c.leave(c.names(dir, now, before))
}

func (c *comparison) names(dir *pending, now, before stack) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	names := newNames(now, before, c.overlay)
	for {
		name, is, was, err := names.next()
		if err != nil {
			return cannotRead(dir.path, err)
		}
		if is == nil && was == nil {
			return nil
		}
		if err := c.name(dir, path.Join(dir.path, name), now, is, before, was); err != nil {
			return err
		}
	}
}

// name compares one name of a directory.
func (c *comparison) name(dir *pending, name string, now stack, is *item, before stack, was *item) error {
	var st, old unix.Stat_t
	var err error
	if is != nil {
		var ok bool
		if st, ok, err = now.stat(*is); err != nil {
			return cannotRead(name, err)
		}
		if !ok {
			is = nil
		}
	}
	if was != nil {
		var ok bool
		if old, ok, err = before.stat(*was); err != nil {
			return cannotRead(name, err)
		}
		if !ok {
			was = nil
		}
	}
	switch {
	case is == nil && was == nil:
		return nil
	case is == nil:
		if err := c.tell(dir); err != nil {
			return err
		}
		return c.emit(difference{path: name, kind: Deleted, implied: dir.emptied})
	case isDir(&st):
		return c.subdirectory(dir, name, now, *is, before, was, &old)
	}
	kind := Added
	if was != nil {
		same, err := c.sameFile(now[is.layer], before[was.layer], is.name, &st, &old)
		if err != nil {
			return cannotRead(name, err)
		}
		if same {
			return nil
		}
		kind = Modified
	} else if c.madeByEngine(name, now[is.layer], is.name, &st) {
		return nil
	}
	if err := c.tell(dir); err != nil {
		return err
	}
	return c.emit(difference{path: name, kind: kind, at: now[is.layer], base: is.name, regular: st.Mode&unix.S_IFMT == unix.S_IFREG})
}

// madeByEngine tells whether a new file is but something to mount on.
func (c *comparison) madeByEngine(name string, at int, base string, st *unix.Stat_t) bool {
	if !c.made[name] {
		return false
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err := readlink(at, base)
		return err == nil && target == "/proc/mounts"
	}
	return st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0
}

// subdirectory compares a directory with what had its name, if anything had.
func (c *comparison) subdirectory(dir *pending, name string, now stack, is item, before stack, was *item, old *unix.Stat_t) error {
	sub, err := now.enter(is)
	if err != nil {
		return cannotRead(name, err)
	}
	defer sub.close()
	if len(sub) == 0 {
		return nil
	}
	defer c.open.give(len(sub))
	if err := c.open.take(name, len(sub)); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	p := &pending{difference: difference{path: name, kind: Added, dir: sub}, up: dir}
	if was == nil {
		// What the engine made is a change only when there is something in it.
		return c.enter(p, sub, nil, !c.made[name] && !c.leads[name])
	}
	p.kind = Modified
	var oldSub stack
	if isDir(old) {
		if oldSub, err = before.enter(*was); err != nil {
			return cannotRead(name, err)
		}
		defer oldSub.close()
		defer c.open.give(len(oldSub))
		if err := c.open.take(name, len(oldSub)); err != nil {
			return err
		}
	}
	return c.enter(p, sub, oldSub, true)
}

// sameAttributes compares owner, mode and extended attributes of two open files
// or places.
func (c *comparison) sameAttributes(a, b int) (bool, error) {
	var s, t unix.Stat_t
	if err := errors.Join(unix.Fstat(a, &s), unix.Fstat(b, &t)); err != nil {
		return false, err
	}
	if s.Mode != t.Mode || s.Uid != t.Uid || s.Gid != t.Gid {
		return false, nil
	}
	return sameXattrs(a, b, c.xattrs)
}

// sameFile compares two things of one name of which the first is no directory.
func (c *comparison) sameFile(now, before int, base string, st, old *unix.Stat_t) (bool, error) {
	if st.Mode != old.Mode || st.Uid != old.Uid || st.Gid != old.Gid || st.Rdev != old.Rdev || st.Size != old.Size || st.Mtim != old.Mtim {
		return false, nil
	}
	// A name more for the same file: a layer can link only what it holds.
	if c.overlay && st.Nlink > 1 || st.Nlink > old.Nlink {
		return false, nil
	}
	if st.Ino == old.Ino && st.Ctim == old.Ctim { // as in a copy that shares all
		return true, nil
	}
	a, err := unix.Openat(now, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, ignoreGone(err)
	}
	defer unix.Close(a)
	b, err := unix.Openat(before, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(b)
	var sa, sb unix.Stat_t // what is open may be another file by now
	if err := errors.Join(unix.Fstat(a, &sa), unix.Fstat(b, &sb)); err != nil || sa.Mode != st.Mode || sb.Mode != st.Mode {
		return false, err
	}
	if same, err := sameXattrs(a, b, c.xattrs); err != nil || !same {
		return false, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		x, err1 := readlink(a, "")
		y, err2 := readlink(b, "")
		return x == y, errors.Join(err1, err2)
	case unix.S_IFREG:
		return c.sameData(a, b)
	}
	return true, nil
}

// ignoreGone takes a file that vanished for one that differs.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// sameData compares what is in two regular files of one size and time. Programs
// set times back, so these alone prove nothing.
func (c *comparison) sameData(a, b int) (bool, error) {
	f, err := openPlace(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := openPlace(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		if err := c.ctx.Err(); err != nil {
			return false, err
		}
		n, err := io.ReadFull(f, p)
		m, err2 := io.ReadFull(g, q)
		if !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		end := err == io.EOF || err == io.ErrUnexpectedEOF
		switch {
		case err != nil && !end:
			return false, err
		case err2 != nil && err2 != io.EOF && err2 != io.ErrUnexpectedEOF:
			return false, err2
		case end:
			return true, nil
		}
	}
}

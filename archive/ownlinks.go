package archive

import (
	"errors"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/openat"
)

// Who unpacks an archive in a directory of a tree (Options.Dir) means it to stay in
// there. Links that were there before lead where they always did, like /var/run in
// most images. Those that the archive made lead as if the directory were the root.

// maxOwn is how many symbolic links an archive may make in such a directory: 16 bytes
// and what a map needs are kept of each. A variable for the sake of the tests.
var maxOwn = 4 << 20

// ownLinks are the symbolic links that an extraction made, by their inodes.
type ownLinks struct {
	made map[inode]bool
	dir  []string                    // the directory's path without a link in it, once one was made
	last struct{ dir, leads string } // until a link is made or something is removed
}

// errClimbs is of a link of the archive that leads out of the directory.
var errClimbs = errors.New("it leads out of the directory")

// ownLink notes that a link was made.
func (x *extractor) ownLink(name string, dir int, base string) error {
	if x.Dir == "" {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return failed(name, err)
	}
	o := &x.links
	if o.made == nil {
		walk := walk{x: x, todo: strings.Split(x.Dir, "/")}
		if err := walk.end(); err != nil {
			return failed(name, err)
		}
		o.made, o.dir = map[inode]bool{}, walk.at
	}
	if len(o.made) >= maxOwn {
		return refuse(name, "is one symbolic link more than an archive may have")
	}
	o.made[inode{st.Dev, st.Ino}] = true
	o.last.dir = ""
	return nil
}

// confined gives an entry's name without what leads through links of the archive's own.
func (x *extractor) confined(name string) (string, error) {
	o, dir := &x.links, path.Dir(name)
	if o.made == nil {
		return name, nil
	}
	if _, known := x.dirs[dir]; known {
		return name, nil
	}
	if dir == o.last.dir {
		return path.Join(o.last.leads, path.Base(name)), nil
	}
	if fd, err := openat.Open(x.root, dir, unix.O_PATH|unix.O_DIRECTORY, openat.InRoot|unix.RESOLVE_NO_SYMLINKS); err == nil {
		unix.Close(fd)
		return name, nil
	}
	walk := walk{x: x, at: slices.Clone(o.dir), floor: len(o.dir)}
	if rest := strings.TrimPrefix(strings.TrimPrefix(dir, x.Dir), "/"); rest != "" {
		walk.todo = strings.Split(rest, "/")
	}
	if err := walk.end(); err != nil {
		return "", err
	}
	o.last.dir, o.last.leads = dir, strings.Join(walk.at, "/")
	return path.Join(o.last.leads, path.Base(name)), nil
}

// walk follows a path below the root, one name at a time.
type walk struct {
	x     *extractor
	at    []string // the names that lead here, no link among them
	floor int      // how many of them links of the archive's own cannot leave; 0 for none
	todo  []string // names; "" is where the target of a link that was there before ends
	links int
}

// end walks to the end. Where nothing is, the rest are mere names.
func (w *walk) end() error {
	for len(w.todo) > 0 {
		name := w.todo[0]
		w.todo = w.todo[1:]
		switch name {
		case "":
			w.floor = len(w.at)
		case ".":
		case "..":
			if w.floor > 0 && len(w.at) <= w.floor {
				return errClimbs
			}
			w.at = w.at[:max(len(w.at)-1, 0)]
		default:
			if err := w.step(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// step goes on by a name: to what has it, or where it leads as a link.
func (w *walk) step(name string) error {
	at := append(slices.Clip(w.at), name)
	place, err := openat.Open(w.x.root, strings.Join(at, "/"), unix.O_PATH|unix.O_NOFOLLOW, openat.InRoot)
	if err != nil { // nothing is there, or what cannot be entered: who makes the entry meets it
		w.at = at
		return nil
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		w.at = at
		return nil
	}
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	target, err := readlink(place, "")
	if err != nil {
		return err
	}
	w.follow(target, w.x.links.made[inode{st.Dev, st.Ino}])
	return nil
}

// follow goes where a link in the directory that was walked to leads.
func (w *walk) follow(target string, own bool) {
	names := slices.DeleteFunc(strings.Split(target, "/"), func(name string) bool { return name == "" })
	home := w.x.links.dir
	switch {
	case !own:
		w.floor = 0
		if path.IsAbs(target) {
			w.at = nil
		}
		names = append(names, "")
	case path.IsAbs(target):
		w.at, w.floor = slices.Clone(home), len(home)
	case w.floor == 0 && len(w.at) >= len(home) && slices.Equal(w.at[:len(home)], home):
		w.floor = len(home)
	case w.floor == 0:
		w.floor = len(w.at)
	}
	w.todo = append(names, w.todo...)
}

package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/internal/deltree"
	"github.com/tarehq/tare/internal/treecopy"
)

// The names of whiteouts, OCI image specification, layer.md.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// merge moves a layer that was extracted by archive.KeepWhiteouts over the tree
// below it.
type merge struct {
	ctx      context.Context
	implicit map[string]bool
}

// mergeStage merges the stage in the root into the root.
func mergeStage(ctx context.Context, root *os.File, stats archive.Stats) error {
	stage, err := openDir(int(root.Fd()), stageName)
	if err != nil {
		return err
	}
	defer stage.Close()
	m := &merge{ctx: ctx, implicit: map[string]bool{}}
	for _, name := range stats.Implicit {
		m.implicit[name] = true
	}
	m.implicit["."] = !stats.Root
	return m.directory(root, stage, ".")
}

// directory merges the directory from into to; name is theirs, from the root.
func (m *merge) directory(to, from *os.File, name string) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	model := from
	if m.implicit[name] {
		model = to
	}
	var st unix.Stat_t // before anything moves
	if err := unix.Fstat(int(model.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	entries, err := from.ReadDir(-1)
	if err != nil {
		return err
	}
	if err := hide(to, entries); err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), whiteoutPrefix) {
			continue
		}
		if err := m.entry(to, from, e, name); err != nil {
			return err
		}
	}
	if model == from {
		if err := treecopy.TakeAfter(int(to.Fd()), int(from.Fd()), &st); err != nil {
			return err
		}
	}
	return setTimes(int(to.Fd()), ".", st.Atim, st.Mtim)
}

// hide removes what the whiteouts among the entries hide.
func hide(to *os.File, entries []fs.DirEntry) error {
	for _, e := range entries {
		hidden, ok := strings.CutPrefix(e.Name(), whiteoutPrefix)
		switch {
		case !ok:
		case e.Name() == whiteoutOpaque:
			names, err := list(to)
			if err != nil {
				return err
			}
			for _, name := range names {
				if name == stageName {
					continue
				}
				if err := removeIn(to, name); err != nil {
					return err
				}
			}
			return nil // nothing is left to hide
		default:
			if err := removeIn(to, hidden); err != nil {
				return err
			}
		}
	}
	return nil
}

// list reads the names in a directory, whatever was read of it before.
func list(dir *os.File) ([]string, error) {
	again, err := openDir(int(dir.Fd()), ".")
	if err != nil {
		return nil, err
	}
	defer again.Close()
	return again.Readdirnames(-1)
}

// entry brings one entry into its place. A directory goes on into one that is
// there; anything else takes the place of what is there.
func (m *merge) entry(to, from *os.File, e fs.DirEntry, above string) error {
	name := e.Name()
	if !e.IsDir() {
		return replace(to, from, name)
	}
	path := name
	if above != "." {
		path = above + "/" + name
	}
	if err := checkPath(path); err != nil {
		return err
	}
	sub, err := openDir(int(from.Fd()), name)
	if err != nil {
		return err
	}
	defer sub.Close()
	below, err := openDir(int(to.Fd()), name)
	if err == nil {
		defer below.Close()
		return m.directory(below, sub, path)
	}
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		return err
	}
	if err := m.dropWhiteouts(sub, path); err != nil {
		return err
	}
	return replace(to, from, name)
}

// removeIn removes what has the name, if anything has.
func removeIn(dir *os.File, name string) error {
	if err := deltree.At(int(dir.Fd()), name); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// replace moves an entry over what is there.
func replace(to, from *os.File, name string) error {
	move := func() error { return unix.Renameat(int(from.Fd()), name, int(to.Fd()), name) }
	err := move()
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		if err = removeIn(to, name); err == nil {
			err = move()
		}
	}
	if err != nil {
		return &fs.PathError{Op: "rename", Path: name, Err: err}
	}
	return nil
}

// dropWhiteouts removes the whiteouts in a tree that has nothing below it to
// hide, and leaves the times of its directories as they are.
func (m *merge) dropWhiteouts(dir *os.File, path string) error {
	if err := errors.Join(m.ctx.Err(), checkPath(path)); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	dropped := false
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), whiteoutPrefix) {
			dropped = true
			if err := unix.Unlinkat(int(dir.Fd()), e.Name(), 0); err != nil {
				return &fs.PathError{Op: "unlink", Path: e.Name(), Err: err}
			}
		} else if e.IsDir() {
			if err := m.dropWhiteoutsIn(dir, e.Name(), path); err != nil {
				return err
			}
		}
	}
	if !dropped {
		return nil
	}
	return setTimes(int(dir.Fd()), ".", st.Atim, st.Mtim)
}

func (m *merge) dropWhiteoutsIn(dir *os.File, name, above string) error {
	sub, err := openDir(int(dir.Fd()), name)
	if err != nil {
		return err
	}
	defer sub.Close()
	return m.dropWhiteouts(sub, above+"/"+name)
}

package snapshot

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/internal/deltree"
)

// whole is the driver of file systems that stack nothing: a layer's tree holds
// all that the layers below have too, and so does a container's.
type whole struct {
	store *Store
	trees trees
}

// trees makes and removes whole trees.
type trees interface {
	// check refuses a file system on which the others cannot work.
	check() error
	// create makes an empty tree, clone one that is like another; both are
	// directories of their own, below those of the same file system.
	create(path string) error
	clone(path, from string) error
	// keep returns when a cloned tree survives power loss.
	keep(path string) error
	remove(path string) error
	status() [][2]string
}

func (w whole) check(bool) error    { return w.trees.check() }
func (w whole) start() error        { return nil }
func (w whole) close()              {}
func (w whole) independent() bool   { return false }
func (w whole) status() [][2]string { return w.trees.status() }

func (w whole) begin(dir, below string) error {
	tree := filepath.Join(dir, "fs")
	if below != "" {
		return w.trees.clone(tree, below)
	}
	return errors.Join(w.trees.create(tree), os.Chmod(tree, 0o755))
}

// stageName is where an archive is extracted in the tree that it changes, so
// that all of it comes into place by rename(2): no two subvolumes of btrfs can
// exchange names. No layer can have the name, which is a whiteout's.
const stageName = ".wh..wh.stage"

// apply extracts the archive beside the tree and then merges the two. So the
// archive sees its own entries alone, as it does where layers are apart: what
// it can reach by links, and which of its entries hide what, is the same.
func (w whole) apply(ctx context.Context, dir string, r io.Reader, over bool) (archive.Stats, error) {
	tree := filepath.Join(dir, "fs")
	if !over {
		return extract(ctx, tree, r, archive.DropWhiteouts)
	}
	root, err := openDir(unix.AT_FDCWD, tree)
	if err != nil {
		return archive.Stats{}, err
	}
	defer root.Close()
	var before unix.Stat_t // the stage comes and goes
	if err := unix.Fstat(int(root.Fd()), &before); err != nil {
		return archive.Stats{}, err
	}
	stage := filepath.Join(tree, stageName)
	if err := makeStage(stage); err != nil {
		return archive.Stats{}, err
	}
	stats, err := extract(ctx, stage, r, archive.KeepWhiteouts)
	if err != nil {
		return stats, err
	}
	if stats.Root {
		if err := unix.Stat(stage, &before); err != nil {
			return stats, &fs.PathError{Op: "stat", Path: stage, Err: err}
		}
	}
	if err := mergeStage(ctx, root, stats); err != nil {
		return stats, err
	}
	if err := os.RemoveAll(stage); err != nil {
		return stats, err
	}
	return stats, setTimes(int(root.Fd()), ".", before.Atim, before.Mtim)
}

// makeStage makes the directory with nothing of what the root of the tree hands
// down to those in it.
func makeStage(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"system.posix_acl_default", "system.posix_acl_access"} {
		if err := unix.Removexattr(path, name); err != nil && err != unix.ENODATA && err != unix.ENOTSUP {
			return &fs.PathError{Op: "removexattr", Path: path, Err: err}
		}
	}
	return errors.Join(os.Lchown(path, 0, 0), os.Chmod(path, 0o755))
}

func (w whole) settle(string, archive.Stats, []string) error { return nil }

func (w whole) writable(top *layer) (string, error) {
	dir := w.store.unique("new", "tree")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	below := top.path
	if top == &w.store.base {
		below = ""
	}
	tree := filepath.Join(dir, "fs")
	err := w.begin(dir, below)
	if err == nil {
		err = addMountPoints(tree)
	}
	if err == nil {
		err = w.trees.keep(tree)
	}
	if err != nil {
		return "", errors.Join(err, w.store.discard(dir))
	}
	return dir, nil
}

func (w whole) mount(dir string, below []string) Mount {
	switch {
	case dir != "":
		return Mount{Dir: filepath.Join(dir, "fs")}
	case len(below) > 0:
		return Mount{Dir: below[0], ReadOnly: true}
	}
	return Mount{Dir: w.store.path("empty"), ReadOnly: true}
}

func (w whole) remove(dir string) error {
	err := w.trees.remove(filepath.Join(dir, "fs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) { // no layer's, nor a container's
		return err
	}
	return deltree.Remove(dir)
}

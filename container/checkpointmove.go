package container

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/container/checkpoint"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
)

// Export writes a checkpoint of a container that does not run, with the
// container's changes to its image, to w.
func (c *Checkpoints) Export(ctx context.Context, nameOrID, dir, name string, w io.Writer) (err error) {
	r, unlock, err := c.containers.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	if r.State.Live() {
		return fault.New(fault.Conflict, "container %s runs, and its files no longer belong to its checkpoint: stop it first", nameOrID)
	}
	path, err := c.find(&r, nameOrID, dir, name)
	if err != nil {
		return err
	}
	diff, err := c.writeDiff(ctx, &r)
	if err != nil {
		return err
	}
	defer diff.Close()
	return checkpoint.Write(w, path, r.Image.ChainID, r.Config.Image, diff)
}

// writeDiff writes the changes to a file that has no name, as a tar has its
// entries' sizes before them.
func (c *Checkpoints) writeDiff(ctx context.Context, r *Record) (*os.File, error) {
	changes, err := c.containers.Files().open(*r)
	if err != nil {
		return nil, err
	}
	defer changes.Close()
	f, err := os.CreateTemp(c.containers.store.Path(r.ID), ".diff-")
	if err != nil {
		return nil, err
	}
	if err = os.Remove(f.Name()); err == nil {
		_, err = changes.WriteLayer(ctx, f, archive.WriteOptions{})
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Import brings what Export wrote to a container that was created of the same
// image and has never run. When it fails nothing of it is left, nor of what had been
// copied into the container before.
func (c *Checkpoints) Import(ctx context.Context, nameOrID, name string, from io.Reader) (err error) {
	s := c.containers
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	if r.State != record.Created {
		return fault.New(fault.Conflict, "a checkpoint is brought to a container that has never run, and %s has: create another of the same image", nameOrID)
	}
	if !checkpointName.MatchString(name) {
		return fault.New(fault.Invalid, "Invalid checkpoint ID (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	dir, err := c.prepare(&r, nameOrID, CheckpointOptions{Name: name})
	if err != nil {
		return err
	}
	root, err := s.rootOf(ctx, &r)
	if err != nil {
		return err
	}
	if root.Upper == "" {
		return fault.New(fault.NotImplemented, "a checkpoint can be brought to a container only where its changes are an overlay's")
	}
	part := filepath.Join(filepath.Dir(dir), "."+name+".new")
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := os.Mkdir(part, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(part), empty(root.Upper))
		}
	}()
	if err := checkpoint.Read(ctx, from, r.Image.ChainID, root.Upper, part); err != nil {
		return err
	}
	return os.Rename(part, dir)
}

// empty removes all that is in a directory.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

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
	changes, err := c.containers.Files.open(*r)
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
// image and has never run: its changes to the image are then the checkpoint's. All
// of it is read before the container is touched, and while other operations on that
// go on; when it fails the container is as it was.
func (c *Checkpoints) Import(ctx context.Context, nameOrID, name string, from io.Reader) (err error) {
	s := c.containers
	r, err := s.store.Find(nameOrID)
	if err != nil {
		return err
	}
	if _, err := c.importable(&r, nameOrID, name); err != nil {
		return err
	}
	bytes, err := s.storageLimit(&r)
	if err != nil {
		return err
	}
	staged, err := s.cfg.Snapshots.Stage(r.ID, bytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, staged.Close()) }()
	images, err := c.stageImages(&r)
	if err != nil {
		return err
	}
	defer os.RemoveAll(images) // unless it has its place by then
	if err := checkpoint.Read(ctx, from, r.Image.ChainID, staged.Apply, images); err != nil {
		return err
	}
	r, unlock, err := s.lock(ctx, r.ID)
	if err != nil {
		return err
	}
	defer unlock()
	dir, err := c.importable(&r, nameOrID, name)
	if err != nil {
		return err
	}
	if err := staged.Swap(); err != nil {
		return err
	}
	if err := os.Rename(images, dir); err != nil {
		return errors.Join(err, staged.Swap())
	}
	return nil
}

// importable is the place for a checkpoint that is to be brought to a container, if
// that may be.
func (c *Checkpoints) importable(r *Record, called, name string) (string, error) {
	if r.State != record.Created {
		return "", fault.New(fault.Conflict, "a checkpoint is brought to a container that has never run, and %s has: create another of the same image", called)
	}
	if !checkpointName.MatchString(name) {
		return "", fault.New(fault.Invalid, "Invalid checkpoint ID (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return c.prepare(r, called, CheckpointOptions{Name: name})
}

// stageImages makes a directory for what is on its way to a container, and removes
// what another daemon left half there.
func (c *Checkpoints) stageImages(r *Record) (string, error) {
	mine := fmt.Sprintf(".import-%d-", os.Getpid())
	old, err := filepath.Glob(c.containers.store.Path(r.ID, ".import-*"))
	for _, path := range old {
		if !strings.HasPrefix(filepath.Base(path), mine) {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(c.containers.store.Path(r.ID), mine)
}

package container

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/spread"
	"github.com/tarehq/tare/supervise"
)

// bundles is the directory of all bundles, <exec-root>/c, and leads to the
// processes that supervise what runs there.
type bundles struct {
	dir      string
	launcher *supervise.Launcher
	log      *slog.Logger
}

const (
	// cleanGrace bounds how long the end of a run waits for its supervising
	// process to clean up.
	cleanGrace = 10 * time.Second
	// connectTime bounds the wait for a supervising process to answer.
	connectTime = 5 * time.Second
)

// open makes the directory, closed to everybody but root.
func (b *bundles) open() error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	spread.Children(b.dir)
	return os.Chmod(b.dir, 0o700) // it may be of an earlier version
}

// path is where the container's bundle and supervising process live while it
// runs.
func (b *bundles) path(id string) string { return filepath.Join(b.dir, id) }

// connect finds the supervising process of a container. fault.NotFound means
// that there is none; after any other error the container may run.
func (b *bundles) connect(ctx context.Context, id string) (*supervise.Keeper, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	keeper, err := supervise.Connect(ctx, b.path(id))
	if errors.Is(err, context.DeadlineExceeded) {
		err = fault.New(fault.Unavailable, "the process that supervises container %s does not answer", id)
	}
	return keeper, err
}

// collect ends what a supervising process left behind that is no more.
func (b *bundles) collect(id string) error {
	dir := b.path(id)
	if _, err := os.Stat(filepath.Join(dir, "config.json")); errors.Is(err, fs.ErrNotExist) {
		return nil // it died before there was anything
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanGrace)
	defer cancel()
	return b.launcher.Collect(ctx, id, dir)
}

// end ends a run that nobody wants, and with it its supervising process.
func end(ctx context.Context, keeper *supervise.Keeper) error {
	defer keeper.Close()
	ctx, cancel := context.WithTimeout(ctx, cleanGrace)
	defer cancel()
	if err := keeper.Kill(ctx); err != nil {
		return err
	}
	if _, err := keeper.Wait(ctx); err != nil {
		return err
	}
	return keeper.Release(ctx)
}

// drop deletes a directory that nobody needs any more, "" for none. What cannot
// be deleted stays, for the next daemon.
func (b *bundles) drop(dir string) {
	if dir == "" {
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		b.log.Error("a directory cannot be deleted", "dir", dir, "err", err)
	}
}

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
	"github.com/tarehq/tare/fault"
)

// Staged is a writable place for a container beside the one that it has, which it
// takes at once when it is filled. Close drops what the container does not have.
type Staged struct {
	store   *Store
	id, dir string
}

// Stage makes a writable place like a container's first one, bound to so many
// bytes; 0 for no bound.
func (s *Store) Stage(id string, bytes uint64) (*Staged, error) {
	if bytes > 0 {
		if err := s.CanLimit(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	chain, ok := s.active[id]
	top, err := s.lookupLocked(chain)
	s.mu.Unlock()
	if !ok {
		return nil, fault.New(fault.NotFound, "container %s has no root file system", id)
	}
	if err != nil {
		return nil, err
	}
	made, err := s.driver.writable(top)
	if err != nil {
		return nil, err
	}
	p := &Staged{store: s, id: id, dir: s.unique("new", "staged")} // what the next Open finds there goes
	if err := os.Rename(made, p.dir); err != nil {
		return nil, errors.Join(err, s.discard(made))
	}
	name := noLayer
	if chain != "" {
		name = chain.Encoded()
	}
	if err = writeTop(p.dir, name); err == nil && bytes > 0 {
		err = s.limiter().limit(p.dir, bytes)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Apply extracts the archive of a layer there.
func (p *Staged) Apply(ctx context.Context, r io.Reader) error {
	if _, stacked := p.store.driver.(*overlay); stacked {
		_, err := extract(ctx, filepath.Join(p.dir, "upper"), r, archive.OverlayWhiteouts)
		return err
	}
	_, err := p.store.driver.apply(ctx, p.dir, r, true)
	return err
}

// Swap exchanges it for the one that the container has, or back. Nothing may be
// mounted from that.
func (p *Staged) Swap() error {
	err := unix.Renameat2(unix.AT_FDCWD, p.dir, unix.AT_FDCWD, p.store.path("active", p.id), unix.RENAME_EXCHANGE)
	return os.NewSyscallError("renameat2", err)
}

// Close drops the one that the container does not have.
func (p *Staged) Close() error {
	if err := p.store.discard(p.dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

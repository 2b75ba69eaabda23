package snapshot

import (
	"context"
	_ "crypto/sha256" // for package digest
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/fault"
)

// ChainID names the layer with the DiffID on top of the chain parent ("" for
// none).
func ChainID(parent, diffID digest.Digest) digest.Digest {
	if parent == "" {
		return diffID
	}
	return digest.FromString(parent.String() + " " + diffID.String())
}

// Unpacking is a layer on its way. Close without Commit leaves nothing.
type Unpacking struct {
	store *Store
	dir   string
	layer layer
	stats archive.Stats
}

// Begin prepares a place for a layer on top of the chain parent ("" for none).
// Unless the store is Independent, the parent must be there.
func (s *Store) Begin(parent digest.Digest) (*Unpacking, error) {
	u := &Unpacking{store: s, dir: s.unique("new", "layer"), layer: layer{Parent: parent}}
	below := ""
	if parent != "" && !s.Independent() {
		s.mu.Lock()
		l, err := s.lookupLocked(parent)
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		below = l.path
	}
	if err := os.Mkdir(u.dir, 0o755); err != nil {
		return nil, err
	}
	if err := s.driver.begin(u.dir, below); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}

// Apply extracts the uncompressed tar. It reads r to its end, past the end of
// the archive, so that who hashes r has seen all of it. It is called once.
func (u *Unpacking) Apply(ctx context.Context, r io.Reader) error {
	var err error
	u.stats, err = u.store.driver.apply(ctx, u.dir, r, u.layer.Parent != "")
	return err
}

// Commit gives the layer its place on top of the chain parent, which Begin was
// told and which must be there by now, under the DiffID, which the caller has
// verified. A layer that is there already stays. Sync makes it durable.
func (u *Unpacking) Commit(parent, diffID digest.Digest) (digest.Digest, error) {
	defer u.Close()
	if parent != u.layer.Parent {
		return "", fault.New(fault.Internal, "the layer %s was begun on %q and cannot be placed on %q", diffID, u.layer.Parent, parent)
	}
	chain := ChainID(parent, diffID)
	if chain.Algorithm() != digest.SHA256 {
		return "", fault.New(fault.NotImplemented, "layers with the digest algorithm %s are not supported", chain.Algorithm())
	}
	if u.store.Has(chain) {
		return chain, nil
	}
	u.layer.DiffID, u.layer.Size = diffID, u.stats.Bytes
	if err := u.finish(); err != nil {
		return "", err
	}
	return chain, u.place(chain)
}

// finish completes the layer's directory.
func (u *Unpacking) finish() error {
	u.store.mu.Lock()
	below, err := u.store.lowerLocked(u.layer.Parent)
	u.store.mu.Unlock()
	if err != nil {
		return err
	}
	if err := u.store.driver.settle(u.dir, u.stats, below); err != nil {
		return fmt.Errorf("cannot finish the layer: %w", err)
	}
	data, err := json.Marshal(u.layer)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(u.dir, "layer.json"), data, 0o644); err != nil {
		return err
	}
	u.layer.path = filepath.Join(u.dir, "fs")
	return u.layer.stat()
}

// place renames the directory to where its chain ID leads.
func (u *Unpacking) place(chain digest.Digest) error {
	s, l := u.store, u.layer
	l.path = filepath.Join(s.layerPath(chain), "fs")
	s.placing.Lock()
	defer s.placing.Unlock()
	if s.Has(chain) {
		return nil
	}
	if l.Parent != "" && !s.Has(l.Parent) { // swept meanwhile
		return fault.New(fault.NotFound, "layer %s is not unpacked", l.Parent)
	}
	if err := os.Rename(u.dir, s.layerPath(chain)); err != nil {
		return err
	}
	u.dir = ""
	l.unsynced = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.layers[chain] = &l
	s.unsynced = append(s.unsynced, chain)
	return nil
}

// Close drops the layer unless it was committed.
func (u *Unpacking) Close() error {
	if u.dir == "" {
		return nil
	}
	err := u.store.discard(u.dir)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	u.dir = ""
	return err
}

// Unpack makes the layer whose uncompressed tar is r on top of the chain
// parent and returns its chain ID. A tar that has not the DiffID is refused
// with fault.Invalid and leaves nothing. If the layer is there, r is not read.
func (s *Store) Unpack(ctx context.Context, parent, diffID digest.Digest, r io.Reader) (digest.Digest, error) {
	if err := diffID.Validate(); err != nil {
		return "", fault.New(fault.Invalid, "%q is not a layer's digest: %w", diffID, err)
	}
	chain := ChainID(parent, diffID)
	if s.Has(chain) {
		return chain, nil
	}
	if parent != "" && !s.Has(parent) {
		return "", fault.New(fault.NotFound, "layer %s is not unpacked", parent)
	}
	u, err := s.Begin(parent)
	if err != nil {
		return "", err
	}
	defer u.Close()
	sum := diffID.Verifier()
	if err := u.Apply(ctx, io.TeeReader(r, sum)); err != nil {
		return "", err
	}
	if !sum.Verified() {
		return "", fault.New(fault.Invalid, "layer content does not have the digest %s that the image promises", diffID)
	}
	return u.Commit(parent, diffID)
}

package snapshot

import (
	"bufio"
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
	lower []string
}

// Begin prepares a place for a layer on top of the chain parent ("" for none).
func (s *Store) Begin(parent digest.Digest) (*Unpacking, error) {
	u := &Unpacking{store: s, dir: s.unique("new", "layer"), layer: layer{Parent: parent}}
	s.mu.Lock()
	if parent != "" {
		var err error
		if u.lower, err = s.lowerLocked(parent); err != nil {
			s.mu.Unlock()
			return nil, err
		}
	}
	s.mu.Unlock()
	fs := filepath.Join(u.dir, "fs")
	if err := os.MkdirAll(fs, 0o755); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	if err := os.Chmod(fs, 0o755); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}

// Apply extracts the uncompressed tar. It reads r to its end, past the end of
// the archive, so that who hashes r has seen all of it.
func (u *Unpacking) Apply(ctx context.Context, r io.Reader) error {
	root, err := os.Open(filepath.Join(u.dir, "fs"))
	if err != nil {
		return err
	}
	defer root.Close()
	var o archive.Options
	for _, dir := range u.lower {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer f.Close()
		o.Lower = append(o.Lower, f)
	}
	if len(o.Lower) > 0 {
		if err := archive.CopyAttributes(root, o.Lower[0]); err != nil {
			return err
		}
	}
	// Headers are read 512 bytes at a time; large data passes the buffer by.
	br := bufio.NewReaderSize(r, 256<<10)
	stats, err := archive.Extract(ctx, root, br, o)
	if err != nil {
		return err
	}
	u.layer.Size = stats.Bytes
	if _, err := br.WriteTo(io.Discard); err != nil {
		return fmt.Errorf("cannot read the archive: %w", err)
	}
	return nil
}

// Commit gives the layer its place under the DiffID, which the caller has
// verified. A layer that is there already stays. Sync makes it durable.
func (u *Unpacking) Commit(diffID digest.Digest) (digest.Digest, error) {
	defer u.Close()
	chain := ChainID(u.layer.Parent, diffID)
	if chain.Algorithm() != digest.SHA256 {
		return "", fault.New(fault.NotImplemented, "layers with the digest algorithm %s are not supported", chain.Algorithm())
	}
	u.layer.DiffID = diffID
	data, err := json.Marshal(u.layer)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(u.dir, "layer.json"), data, 0o644); err != nil {
		return "", err
	}
	u.layer.path = filepath.Join(u.dir, "fs")
	if err := u.layer.stat(); err != nil {
		return "", err
	}
	s, l := u.store, u.layer
	l.path = filepath.Join(s.layerPath(chain), "fs")
	s.placing.Lock()
	defer s.placing.Unlock()
	if s.Has(chain) {
		return chain, nil
	}
	if l.Parent != "" && !s.Has(l.Parent) {
		return "", fault.New(fault.NotFound, "layer %s is not unpacked", l.Parent)
	}
	if err := os.Rename(u.dir, s.layerPath(chain)); err != nil {
		return "", err
	}
	u.dir = ""
	l.unsynced = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.layers[chain] = &l
	s.unsynced = append(s.unsynced, chain)
	return chain, nil
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
	return u.Commit(diffID)
}

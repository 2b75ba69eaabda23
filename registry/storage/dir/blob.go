package dir

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

func noBlob(repo string, d digest.Digest) error {
	return fault.New(fault.NotFound, "repository %s has no blob %s", repo, d)
}

// find looks a blob of the repository up, so that it stays for the grace period.
func (s *Storage) find(repo string, d digest.Digest) (counted, error) {
	for {
		var blob counted
		sentences := s.found.sentences()
		err := s.db.View(func(tx *bbolt.Tx) error {
			r, err := lookRepo(tx, repo)
			if err != nil {
				return noBlob(repo, d)
			}
			var ok bool
			if blob, ok = r.blob(d); !ok {
				return noBlob(repo, d)
			}
			return nil
		})
		// What a manifest keeps is due only from its deletion on.
		if err != nil || blob.users > 0 || s.found.find(d, sentences) {
			return blob, explain(err)
		}
	}
}

// Blob opens a blob of the repository.
func (s *Storage) Blob(_ context.Context, repo string, d digest.Digest) (*storage.Blob, error) {
	blob, err := s.find(repo, d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noBlob(repo, d) // lost; who pushes it again heals it
	}
	if err != nil {
		return nil, explain(err)
	}
	return &storage.Blob{Content: f, Size: blob.size}, nil
}

// Mount gives the repository a blob that another one has.
func (s *Storage) Mount(_ context.Context, repo, from string, d digest.Digest) (int64, error) {
	if blob, err := s.find(repo, d); err == nil && !s.isLost(d) {
		return blob.size, nil
	}
	var size int64
	return size, s.update(func(tx *bbolt.Tx) error {
		source, err := lookRepo(tx, from)
		if err != nil {
			return noBlob(from, d)
		}
		blob, ok := source.blob(d)
		if !ok || s.isLost(d) {
			return noBlob(from, d)
		}
		size = blob.size
		return s.linkBlob(tx, repo, d, size)
	})
}

// linkBlob gives the repository a blob that has its place.
func (s *Storage) linkBlob(tx *bbolt.Tx, repo string, d digest.Digest, size int64) error {
	r, err := makeRepo(tx, repo)
	if err != nil {
		return err
	}
	s.found.touch(d)
	return r.link(d, size)
}

// DeleteBlob takes the blob from the repository.
func (s *Storage) DeleteBlob(_ context.Context, repo string, d digest.Digest) error {
	return s.update(func(tx *bbolt.Tx) error {
		r, err := lookRepo(tx, repo)
		if err != nil {
			return noBlob(repo, d)
		}
		blob, ok := r.blob(d)
		switch {
		case !ok:
			return noBlob(repo, d)
		case blob.users > 0:
			return fault.New(fault.Conflict, "blob %s is part of a manifest in %s: delete the manifest first", d, repo)
		}
		s.found.touch(d)
		if err := r.unlink(d); err != nil {
			return err
		}
		return r.prune()
	})
}

package upstream

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// Blob opens a blob: here, or as it comes from upstream. Its reader waits for
// bytes that have not come yet, and fails where the blob turns out not to be what
// its digest says.
func (s *Storage) Blob(ctx context.Context, repo string, d digest.Digest) (*storage.Blob, error) {
	b, err := s.Storage.Blob(ctx, repo, d)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return nil, err
	}
	p, path, cached := s.route(repo)
	if !cached {
		return b, err
	}
	if err == nil {
		p.counts.look(aBlob, hit)
		if n, _ := s.named.get(repo + "@" + string(d)); len(n.lacks) > 0 {
			s.background("arrived "+repo+"@"+string(d), func(ctx context.Context) error { return s.arrived(ctx, repo, d) })
		}
		return b, nil
	}
	p.counts.look(aBlob, asked)
	size, err := s.size(ctx, p, path, repo, d)
	if err != nil {
		return nil, err
	}
	if limit := s.config.MaxBlob; limit > 0 && size > limit {
		return nil, fault.New(fault.Forbidden, "the blob %s has %d bytes, and this registry takes at most %d", d, size, limit)
	}
	r, err := s.follow(ctx, p, path, repo, d, size)
	if err != nil {
		return nil, err
	}
	return &storage.Blob{Content: r, Size: size}, nil
}

// size finds out how large a blob is, and with that whether upstream's
// repository has it.
func (s *Storage) size(ctx context.Context, p *peer, path, repo string, d digest.Digest) (int64, error) {
	key := repo + "@" + string(d)
	if n, ok := s.named.get(key); ok {
		return n.size, nil
	}
	err := s.once(ctx, "size "+key, 0, func(ctx context.Context) error {
		r, err := p.repository(path)
		if err != nil {
			return err
		}
		size, err := r.BlobSize(ctx, d)
		if err == nil {
			s.named.change(key, func(n named) named { n.size = size; return n })
		}
		return p.failed(ctx, err)
	})
	n, ok := s.named.get(key)
	if err == nil && !ok {
		err = fault.New(fault.Unavailable, "too much is asked of the registry at the same time: try again")
	}
	return n.size, err
}

// stored gives the repositories that waited for a download what it has brought,
// and what names it keeps it.
func (s *Storage) stored(ctx context.Context, from string, repos []string, d digest.Digest) error {
	var failed error
	for _, repo := range repos {
		if repo != from {
			if _, err := s.Storage.Mount(ctx, repo, from, d); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		failed = errors.Join(failed, s.arrived(ctx, repo, d))
	}
	return failed
}

package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
)

// KeepManifest has the manifest written anew when that was not done for a
// quarter of the grace. One that is about to expire is not any more.
func (s *Storage) KeepManifest(ctx context.Context, repo string, d digest.Digest) error {
	key := s.manifestKey(repo, d)
	there, known := s.manifests.get(key)
	for range attempts {
		if known && !there.expiring && s.line.now().Sub(there.kept) < s.grace/4 {
			return nil
		}
		var err error
		there, err = s.manifest(ctx, repo, d)
		if err != nil {
			return err
		}
		if there.manifest == nil {
			return noManifest(repo, d)
		}
		if !there.expiring && s.line.now().Sub(there.kept) < s.grace/4 {
			return nil
		}
		m := *there.manifest
		_, err = s.write(ctx, key, there.etag, header{Attempt: rand.Text(), Updated: m.Updated}, m)
		if known = false; !errors.Is(err, errChanged) {
			return err
		}
	}
	return fault.New(fault.Unavailable, "the manifest %s of %s changes again and again: try later", d, repo)
}

// ExpireManifest marks the manifest, looks for tags, and deletes it if it is as it
// marked it. PutManifest looks at the manifest after its tags are set: either
// these are seen here, or the mark is seen there and goes.
func (s *Storage) ExpireManifest(ctx context.Context, repo string, d digest.Digest, updated time.Time, grace time.Duration) error {
	there, err := s.manifest(ctx, repo, d)
	if err != nil {
		return err
	}
	if there.manifest == nil {
		return noManifest(repo, d)
	}
	conflict := fault.New(fault.Conflict, "the manifest %s of %s has been put or tagged meanwhile: look at it again", d, repo)
	if !there.manifest.Updated.Equal(updated) {
		return conflict
	}
	if wait := s.wait(grace); grace > 0 && s.line.now().Sub(there.kept) < wait {
		return conflict
	}
	if tagged, err := s.tagged(ctx, repo, d); err != nil {
		return err
	} else if tagged {
		return conflict // without a mark, in nearly all cases
	}
	etag, err := s.mark(ctx, repo, there)
	if errors.Is(err, errChanged) {
		return conflict
	} else if err != nil {
		return err
	}
	if tagged, err := s.tagged(ctx, repo, d); err != nil {
		return err
	} else if tagged {
		return conflict
	}
	waste, err := s.loosen(ctx, repo, there.manifest)
	if err != nil {
		return err
	}
	if _, err := s.swap(ctx, s.manifestKey(repo, d), etag, nil); errors.Is(err, errChanged) {
		return conflict
	} else if err != nil {
		return err
	}
	s.manifests.remove(s.manifestKey(repo, d))
	return s.remove(ctx, waste...)
}

// mark has the manifest expire unless somebody puts or keeps it from now on.
func (s *Storage) mark(ctx context.Context, repo string, there *storedManifest) (etag string, err error) {
	m := *there.manifest
	return s.write(ctx, s.manifestKey(repo, m.Descriptor.Digest), there.etag, header{Attempt: rand.Text(), Expiring: true, Updated: m.Updated}, m)
}

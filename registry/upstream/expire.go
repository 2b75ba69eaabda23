package upstream

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// Collect first takes from the copies what nobody has asked for, and then
// collects.
func (s *Storage) Collect(ctx context.Context, grace time.Duration) (storage.Collected, error) {
	if err := s.expire(ctx, time.Now()); err != nil {
		return storage.Collected{}, err
	}
	return s.Storage.Collect(ctx, grace)
}

// page is how many names are read at a time.
const page = 256

func (s *Storage) expire(ctx context.Context, now time.Time) error {
	for last := ""; ; {
		repos, err := s.Storage.Repositories(ctx, last, page)
		if err != nil || len(repos) == 0 {
			return err
		}
		for _, repo := range repos {
			last = repo
			if p, _, cached := s.route(repo); cached && p.Unused > 0 {
				if err := s.expireIn(ctx, p, repo, now.Add(-p.Unused)); err != nil && !errors.Is(err, fault.NotFound) {
					return err
				}
			}
		}
	}
}

// expireIn removes the manifests that were last used before the time. That they
// were is noted by putting them again, see used.
func (s *Storage) expireIn(ctx context.Context, p *peer, repo string, before time.Time) error {
	for last := digest.Digest(""); ; {
		list, err := s.Storage.Manifests(ctx, repo, last, page)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, d := range list {
			last = d
			m, err := s.Storage.Manifest(ctx, repo, d)
			if err == nil && !m.Updated.IsZero() && m.Updated.Before(before) {
				s.noted.drop(repo + "@" + string(d))
				if err = s.Storage.DeleteManifest(ctx, repo, d, nil); err == nil {
					s.log.Info("a cached manifest that nobody asked for was removed", "upstream", p.Name, "repository", repo, "digest", d, "used", m.Updated)
				}
			}
			if err != nil && !errors.Is(err, fault.NotFound) {
				return err
			}
		}
	}
}

package upstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// list is what an upstream has listed.
type list[T any] struct {
	items []T
	at    time.Time
}

type referrer = ocispec.Descriptor

// What is remembered of a list is bounded; one that is longer is asked for
// again.
const (
	maxKeptTags      = 20_000
	maxKeptReferrers = 64 << 10 // bytes
)

// Tags lists the tags that upstream has or, while it does not answer, those that
// are here.
func (s *Storage) Tags(ctx context.Context, repo, last string, n int) ([]string, error) {
	here, err := s.Storage.Tags(ctx, repo, last, n)
	p, path, cached := s.route(repo)
	if !cached || err != nil && !errors.Is(err, fault.NotFound) {
		return here, err
	}
	ttl := p.TagTTL
	if last != "" {
		ttl = max(ttl, s.pace.lists)
	}
	if known, ok := s.lists.get(repo); ok && time.Since(known.at) < ttl {
		return after(known.items, last, n), nil
	}
	tags, ok, err := ask(ctx, s, p, err == nil, "tags "+repo, func(ctx context.Context) ([]string, error) {
		r, err := p.repository(path)
		if err != nil {
			return nil, err
		}
		tags, err := r.Tags(ctx)
		if err != nil {
			return nil, err
		}
		slices.Sort(tags)
		if tags = slices.Compact(tags); len(tags) <= maxKeptTags {
			s.lists.put(repo, list[string]{tags, time.Now()})
		}
		return tags, nil
	})
	if !ok {
		return here, err
	}
	return after(tags, last, n), nil
}

// after gives at most n names (all for n < 0) from the first after last on.
func after(names []string, last string, n int) []string {
	i, found := slices.BinarySearch(names, last)
	if found {
		i++
	}
	names = names[i:]
	if n >= 0 && len(names) > n {
		names = names[:n]
	}
	return names
}

// Referrers lists what refers to a manifest at upstream or, while it does not
// answer, what is here of it.
func (s *Storage) Referrers(ctx context.Context, repo string, d, last digest.Digest, n int) ([]ocispec.Descriptor, error) {
	here, err := s.Storage.Referrers(ctx, repo, d, last, n)
	p, path, cached := s.route(repo)
	if !cached || err != nil && !errors.Is(err, fault.NotFound) {
		return here, err
	}
	key := repo + "@" + string(d)
	ttl := p.TagTTL
	if last != "" {
		ttl = max(ttl, s.pace.lists)
	}
	if known, ok := s.refers.get(key); ok && time.Since(known.at) < ttl {
		return afterReferrer(known.items, last, n), nil
	}
	list, ok, err := ask(ctx, s, p, len(here) > 0, "referrers "+key, func(ctx context.Context) ([]referrer, error) {
		r, err := p.repository(path)
		if err != nil {
			return nil, err
		}
		all, err := r.Referrers(ctx, d)
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(d referrer) bool { return !storage.ValidDigest(d.Digest) })
		slices.SortFunc(all, byDigest)
		if data, err := json.Marshal(all); err == nil && len(data) <= maxKeptReferrers {
			s.refers.put(key, list[referrer]{all, time.Now()})
		}
		return all, nil
	})
	if !ok {
		return here, err
	}
	return afterReferrer(list, last, n), nil
}

func byDigest(a, b referrer) int { return cmp.Compare(a.Digest, b.Digest) }

// afterReferrer is after for referrers.
func afterReferrer(all []referrer, last digest.Digest, n int) []referrer {
	i, found := slices.BinarySearchFunc(all, referrer{Digest: last}, byDigest)
	if found {
		i++
	}
	all = all[i:]
	if n >= 0 && len(all) > n {
		all = all[:n]
	}
	return all
}

// ask has upstream list something. It is not ok if what is here has to do.
func ask[T any](ctx context.Context, s *Storage, p *peer, here bool, what string, f func(ctx context.Context) ([]T, error)) (items []T, ok bool, err error) {
	limit := time.Duration(0)
	if here {
		if p.isDown() {
			return nil, false, nil
		}
		limit = s.pace.revalidate
	}
	items, err = share(ctx, s, what, limit, func(ctx context.Context) ([]T, error) {
		items, err := f(ctx)
		return items, s.heard(p, p.failed(ctx, err))
	})
	if err == nil || !here || errors.Is(err, fault.NotFound) || ctx.Err() != nil {
		return items, err == nil, err
	}
	s.log.Warn("a list is of what is here: the upstream cannot be asked", "upstream", p.Name, "what", what, "error", err)
	return nil, false, nil
}

package upstream

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// Tag reads what a tag points to, at upstream if that was not asked for a while.
// As long as upstream does not answer, or refuses this registry, what is here
// serves, and says so.
func (s *Storage) Tag(ctx context.Context, repo, name string) (storage.Tag, error) {
	have, err := s.Storage.Tag(ctx, repo, name)
	p, path, cached := s.route(repo)
	here := err == nil
	if !cached || !here && !errors.Is(err, fault.NotFound) {
		return have, err
	}
	key := repo + ":" + name
	if at, known := s.checked.get(key); here && known && time.Since(at) < p.TagTTL {
		p.counts.look(aTag, hit)
		return have, nil
	}
	limit := time.Duration(0)
	if here {
		if p.isDown() {
			p.counts.look(aTag, stale)
			have.Stale = true
			return have, nil
		}
		limit = s.pace.revalidate
	}
	err = s.once(ctx, "tag "+key, limit, func(ctx context.Context) error { return s.revalidate(ctx, p, path, repo, name) })
	switch {
	case err == nil:
		p.counts.look(aTag, asked)
		return s.Storage.Tag(ctx, repo, name)
	case !here || errors.Is(err, fault.NotFound) || ctx.Err() != nil:
		p.counts.look(aTag, asked)
		return storage.Tag{}, err
	}
	p.counts.look(aTag, stale)
	if errors.Is(err, errLate) {
		p.setDown(time.Now().Add(s.pace.down)) // until the request that goes on says otherwise
	}
	s.log.Warn("a tag is served as it was: its upstream cannot be asked", "upstream", p.Name, "repository", repo, "tag", name,
		"updated", have.Updated, "error", err)
	have.Stale = true
	return have, nil
}

// revalidate has the tag here be what it is at upstream. Where nothing has
// changed that costs a HEAD.
func (s *Storage) revalidate(ctx context.Context, p *peer, path, repo, name string) error {
	r, err := p.repository(path)
	if err != nil {
		return err
	}
	d, err := r.Resolve(ctx, name)
	if err = s.heard(p, p.failed(ctx, err)); errors.Is(err, fault.NotFound) {
		return s.untag(ctx, p, repo, name, err)
	}
	if err != nil {
		return err
	}
	if !storage.ValidDigest(d.Digest) {
		return &storage.UpstreamError{Name: p.Name, Err: fault.New(fault.Invalid, "the tag %s has a digest that is none", name)}
	}
	have, err := s.Storage.Tag(ctx, repo, name)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	if err != nil || have.Target.Digest != d.Digest {
		if err := s.move(ctx, p, path, repo, name, d.Digest); err != nil {
			return err
		}
	}
	s.checked.put(repo+":"+name, time.Now())
	return nil
}

// heard notes whether upstream answers.
func (s *Storage) heard(p *peer, err error) error {
	until := time.Time{}
	if errors.Is(err, fault.Unavailable) {
		until = time.Now().Add(s.pace.down)
	}
	p.setDown(until)
	return err
}

// untag removes a tag that upstream does not have, as err says.
func (s *Storage) untag(ctx context.Context, p *peer, repo, name string, err error) error {
	switch e := s.Storage.DeleteTag(ctx, repo, name); {
	case e == nil:
		s.log.Info("a tag was removed: its upstream does not have it any more", "upstream", p.Name, "repository", repo, "tag", name)
	case !errors.Is(e, fault.NotFound):
		return e
	}
	return err
}

// move points a tag to a manifest, which is fetched if it is not here.
func (s *Storage) move(ctx context.Context, p *peer, path, repo, name string, d digest.Digest) error {
	m, err := s.whole(ctx, repo, d)
	if errors.Is(err, fault.NotFound) {
		m, err = p.fetch(ctx, path, d)
	}
	if err != nil {
		return err
	}
	return s.put(ctx, repo, m, storage.NewTag{Name: name})
}

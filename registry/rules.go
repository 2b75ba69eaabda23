package registry

import (
	"context"
	"errors"
	"net/http"

	units "github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// quota is how many bytes the repository may have, 0 for no limit.
func (q *request) quota() int64 {
	if q.api.Rules == nil {
		return 0
	}
	return q.api.Rules.Quota(q.repo)
}

func (q *request) immutable(tag string) bool {
	return q.api.Rules != nil && q.api.Rules.Immutable(q.repo, tag)
}

// grow runs what adds size bytes to the repository, unless they are more than
// its quota leaves. What it has already, as has tells, adds nothing. While one
// request grows a repository with a quota, others wait.
func (q *request) grow(size int64, has func(ctx context.Context) (bool, error), add func(ctx context.Context) error) error {
	ctx := q.whole()
	limit := q.quota()
	if limit == 0 {
		return add(ctx)
	}
	release, err := q.api.filling.Lock(q.Context(), q.repo)
	if err != nil {
		return err
	}
	defer release()
	if known, err := has(ctx); err != nil {
		return err
	} else if known {
		return add(ctx)
	}
	used, err := q.api.Storage.Usage(ctx, q.repo)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	if size > limit-used {
		return q.full(limit)
	}
	return add(ctx)
}

// full says that the quota is used up. Docker's clients show the sentence of
// this code, and do not try again.
func (q *request) full(limit int64) error {
	return refuse(http.StatusForbidden, denied, fault.New(fault.Forbidden,
		"%s has a quota of %s, which this exceeds: delete images of it, or ask who runs the registry for more", q.repo, units.BytesSize(float64(limit))))
}

func (q *request) hasBlob(d digest.Digest) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		blob, err := q.api.Storage.Blob(ctx, q.repo, d)
		if err == nil {
			err = blob.Content.Close()
		}
		return known(err)
	}
}

func (q *request) hasManifest(d digest.Digest) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		_, err := q.api.Storage.Manifest(ctx, q.repo, d)
		return known(err)
	}
}

func known(err error) (bool, error) {
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// keepsImmutable refuses to delete a manifest that an immutable tag points to.
func (q *request) keepsImmutable(ctx context.Context, d digest.Digest) error {
	if q.api.Rules == nil {
		return nil
	}
	names, err := q.api.Storage.Tags(ctx, q.repo, "", -1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !q.immutable(name) {
			continue
		}
		tag, err := q.api.Storage.Tag(ctx, q.repo, name)
		if _, err := known(err); err != nil {
			return err
		}
		if tag.Target.Digest == d {
			return q.fixed(name)
		}
	}
	return nil
}

// fixed refuses to delete what an immutable tag points to.
func (q *request) fixed(tag string) error {
	return fault.New(fault.Conflict, "the tag %s of %s is immutable, so it stays with all that it points to: ask who runs the registry to change that", tag, q.repo)
}

// newTags says how the tags are to be set.
func (q *request) newTags(names []string) []storage.NewTag {
	list := make([]storage.NewTag, len(names))
	for i, name := range names {
		list[i] = storage.NewTag{Name: name, Immutable: q.immutable(name)}
	}
	return list
}

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

func (q *request) immutable(tag string) bool {
	return q.api.Rules != nil && q.api.Rules.Immutable(q.repo, tag)
}

// full says that the quota is used up. Docker's clients show the sentence of
// this code, and do not try again.
func (q *request) full(limit int64) error {
	return refuse(http.StatusForbidden, denied, fault.New(fault.Forbidden,
		"%s has a quota of %s, which this exceeds: delete images of it, or ask who runs the registry for more", q.repo, units.BytesSize(float64(limit))))
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

package registry

import (
	"errors"
	"net/http"

	units "github.com/docker/go-units"
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

// fixed tells which tags keep what they point to from being deleted; nil for none.
func (q *request) fixed() func(tag string) bool {
	if q.api.Rules == nil {
		return nil
	}
	return q.immutable
}

// newTags says how the tags are to be set.
func (q *request) newTags(names []string) []storage.NewTag {
	list := make([]storage.NewTag, len(names))
	for i, name := range names {
		list[i] = storage.NewTag{Name: name, Immutable: q.immutable(name)}
	}
	return list
}

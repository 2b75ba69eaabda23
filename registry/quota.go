package registry

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/keylock"
)

// quotas count what uploads under way have of their repositories' quotas: bytes
// that are on disk already, though no repository has them yet. They are the
// uploads that this process has seen; registries that share a bucket meet where
// a blob is committed.
type quotas struct {
	measuring keylock.Locks[string] // repositories that have a quota, while they grow or are asked for their usage

	mu sync.Mutex
	of map[string]*account
}

// account is what is known of a repository that has uploads under way.
type account struct {
	used     int64     // by what the repository has
	measured time.Time // when it said so
	held     map[string]*hold
	sum      int64 // of all that is held
}

// hold is what an upload has of the quota.
type hold struct {
	size  int64
	busy  int       // requests that bring more
	since time.Time // when the last one ended
}

const (
	// exact is how long a repository is not asked for its usage again, unless the
	// quota would be full by what it said.
	exact = 10 * time.Second
	// idle is how long nobody has to have written to an upload before it gives way to
	// one that would exceed the quota otherwise: what a broken push has left
	// must not keep its client from trying again.
	idle = time.Minute
)

// enter begins a request that brings bytes of an upload.
func (t *quotas) enter(repo, id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[string]*account{}
	}
	a := t.of[repo]
	if a == nil {
		a = &account{held: map[string]*hold{}}
		t.of[repo] = a
	}
	if a.held[id] == nil {
		a.held[id] = &hold{}
	}
	a.held[id].busy++
}

// leave ends it. The upload has so many bytes now.
func (t *quotas) leave(repo, id string, size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.of[repo]
	if a == nil || a.held[id] == nil { // it came to its end
		return
	}
	h := a.held[id]
	a.sum += size - h.size
	h.size, h.since = size, time.Now()
	if h.busy--; h.busy == 0 && h.size == 0 {
		t.dropLocked(repo, a, id)
	}
}

// drop ends an upload. What it has become, a blob of some bytes or nothing, is
// the repository's.
func (t *quotas) drop(repo, id string, became int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.of[repo]
	if a == nil {
		return
	}
	a.used += became
	t.dropLocked(repo, a, id)
}

func (t *quotas) dropLocked(repo string, a *account, id string) {
	if h := a.held[id]; h != nil {
		a.sum -= h.size
		delete(a.held, id)
	}
	if len(a.held) == 0 {
		delete(t.of, repo)
	}
}

// measure notes what the repository has.
func (t *quotas) measure(repo string, used int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.of[repo]; a != nil {
		a.used, a.measured = used, time.Now()
	}
}

// grant gives the upload as much of the quota as it wants in all, or as there
// is. It is not sure where less is told than wanted, or an old usage counted.
func (t *quotas) grant(repo, id string, want, limit int64) (size int64, sure bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.of[repo]
	if a == nil || a.held[id] == nil {
		return 0, false // it gave way
	}
	h := a.held[id]
	sure = time.Since(a.measured) < exact
	if size = min(want, limit-a.used-(a.sum-h.size)); size < want {
		sure = false
	}
	if size > h.size {
		a.sum += size - h.size
		h.size = size
	}
	return max(size, 0), sure
}

// others is what uploads have besides the one.
func (t *quotas) others(repo, id string) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.of[repo]
	if a == nil {
		return 0
	}
	if h := a.held[id]; h != nil {
		return a.sum - h.size
	}
	return a.sum
}

// abandoned lists the uploads that nobody has written to for the time.
func (t *quotas) abandoned(repo string, patience time.Duration) (ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.of[repo]; a != nil {
		for id, h := range a.held {
			if h.busy == 0 && time.Since(h.since) >= patience {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// quota is how many bytes the repository may have, 0 for no limit.
func (q *request) quota() int64 {
	if q.api.Rules == nil {
		return 0
	}
	return q.api.Rules.Quota(q.repo)
}

// reach has the upload count with its size against the quota, or with what there
// is room for.
func (q *request) reach(id string, size, limit int64) (int64, error) {
	t := &q.api.quotas
	if size, sure := t.grant(q.repo, id, size, limit); sure {
		return size, nil
	}
	ctx := q.whole()
	release, err := t.measuring.Lock(q.Context(), q.repo)
	if err != nil {
		return 0, err
	}
	defer release()
	if _, err := q.measure(ctx); err != nil {
		return 0, err
	}
	room, _ := t.grant(q.repo, id, size, limit)
	if room < size && q.makeRoom(ctx) {
		room, _ = t.grant(q.repo, id, size, limit)
	}
	return room, nil
}

// measure asks for the usage of the repository, which is locked.
func (q *request) measure(ctx context.Context) (int64, error) {
	used, err := q.api.Storage.Usage(ctx, q.repo)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return 0, err
	}
	q.api.quotas.measure(q.repo, used)
	return used, nil
}

// makeRoom ends the uploads that nobody goes on with, and tells whether there
// were some. One that somebody has open again stays.
func (q *request) makeRoom(ctx context.Context) (any bool) {
	for _, id := range q.api.quotas.abandoned(q.repo, q.api.idle) {
		up, err := q.api.Storage.OpenUpload(ctx, q.repo, id)
		if err == nil {
			err = errors.Join(up.Cancel(ctx), up.Close())
		}
		if err == nil || errors.Is(err, fault.NotFound) {
			q.api.quotas.drop(q.repo, id, 0)
			any = true
		}
	}
	return any
}

// grow runs what adds size bytes to the repository, unless they are more than
// its quota and the uploads under way leave. What it has already, as has
// tells, adds nothing. from is the upload that the bytes come from, "" for none.
// While one request grows a repository with a quota, others wait.
func (q *request) grow(size int64, from string, has func(ctx context.Context) (bool, error), add func(ctx context.Context) error) error {
	ctx := q.whole()
	limit := q.quota()
	if limit == 0 {
		return add(ctx)
	}
	t := &q.api.quotas
	release, err := t.measuring.Lock(q.Context(), q.repo)
	if err != nil {
		return err
	}
	defer release()
	known, err := has(ctx)
	if err != nil {
		return err
	}
	if known {
		size = 0
	} else {
		used, err := q.measure(ctx)
		if err != nil {
			return err
		}
		if size > limit-used-t.others(q.repo, from) {
			if !q.makeRoom(ctx) || size > limit-used-t.others(q.repo, from) {
				return q.full(limit)
			}
		}
	}
	if err := add(ctx); err != nil {
		return err
	}
	t.drop(q.repo, from, size)
	return nil
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

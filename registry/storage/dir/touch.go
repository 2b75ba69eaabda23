package dir

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// touches remembers when blobs that nothing keeps were last asked for, so that
// Collect spares them for the grace period. Times are of the monotonic clock; what
// is not in the table counts as touched when the process began, which covers
// what was told to clients before.
type touches struct {
	mu        sync.Mutex
	began     time.Time
	at        map[digest.Digest]time.Duration // since began
	condemned map[digest.Digest]chan struct{} // to be removed by a transaction under way
	sentence  uint64                          // how many such transactions have ended
	longest   time.Duration                   // grace so far
}

func newTouches() *touches {
	return &touches{began: time.Now(), at: map[digest.Digest]time.Duration{}, condemned: map[digest.Digest]chan struct{}{}}
}

// sentences is to be asked before the look into the database that find is about.
func (t *touches) sentences() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sentence
}

// find keeps a blob that was seen after sentences returned. If that may be
// outdated it returns false, and the caller looks again.
func (t *touches) find(d digest.Digest, sentences uint64) bool {
	t.mu.Lock()
	wait, condemned := t.condemned[d]
	if !condemned && t.sentence == sentences {
		t.at[d] = time.Since(t.began)
		t.mu.Unlock()
		return true
	}
	t.mu.Unlock()
	if condemned {
		<-wait
	}
	return false
}

// touch keeps a blob from within a transaction, beside which none can condemn.
func (t *touches) touch(d digest.Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at[d] = time.Since(t.began)
}

// due tells whether the bytes have been due for the grace.
func (t *touches) due(d digest.Digest, grace time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.began)-t.at[d] >= grace
}

// condemn returns those of the blobs that have been due for the grace. They
// cannot be found until pardon was called. It belongs into the transaction that
// removes them.
func (t *touches) condemn(list []digest.Digest, grace time.Duration) map[digest.Digest]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	due, now := map[digest.Digest]bool{}, time.Since(t.began)
	for _, d := range list {
		if now-t.at[d] >= grace && !due[d] {
			due[d] = true
			t.condemned[d] = make(chan struct{})
		}
	}
	return due
}

// pardon ends what condemn began, once the transaction has ended in one way or
// the other.
func (t *touches) pardon(list map[digest.Digest]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sentence++
	for d := range list {
		close(t.condemned[d])
		delete(t.condemned, d)
	}
}

// forget drops touches that are older than any grace has been.
func (t *touches) forget(grace time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.longest = max(t.longest, grace)
	now := time.Since(t.began)
	for d, at := range t.at {
		if now-at > t.longest {
			delete(t.at, d)
		}
	}
}

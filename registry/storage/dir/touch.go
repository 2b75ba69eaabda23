package dir

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// touches remembers when blobs that nothing keeps were last asked for, and
// manifests, so that Collect and ExpireManifest spare them for the grace period. Times are of the monotonic clock; what
// was never touched counts as touched when the process began, which covers
// what was told to clients before.
//
// The table does not grow: blobs whose hashes meet in a slot share their last
// touch, by which some garbage stays a while longer, and nothing goes too early.
type touches struct {
	mu        sync.Mutex
	began     time.Time
	seed      maphash.Seed
	at        []uint32                        // ticks since began, by hash
	condemned map[digest.Digest]chan struct{} // to be removed by a transaction under way
	sentence  uint64                          // how many such transactions have ended
}

const (
	slots = 1 << 19
	tick  = time.Second / 16 // 32 bits of them are eight years
)

func newTouches() *touches {
	return &touches{began: time.Now(), seed: maphash.MakeSeed(), at: make([]uint32, slots), condemned: map[digest.Digest]chan struct{}{}}
}

func (t *touches) slot(d digest.Digest) *uint32 {
	return &t.at[maphash.String(t.seed, string(d))%slots]
}

// touchLocked rounds up.
func (t *touches) touchLocked(d digest.Digest) {
	*t.slot(d) = uint32((time.Since(t.began) + tick - 1) / tick)
}

func (t *touches) dueLocked(d digest.Digest, grace time.Duration) bool {
	return grace <= 0 || time.Since(t.began)-time.Duration(*t.slot(d))*tick >= grace
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
		t.touchLocked(d)
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
	t.touchLocked(d)
}

// due tells whether the bytes have been due for the grace.
func (t *touches) due(d digest.Digest, grace time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dueLocked(d, grace)
}

// condemn returns those of the blobs that have been due for the grace. They
// cannot be found until pardon was called. It belongs into the transaction that
// removes them. What another change of it has condemned is left to that.
func (t *touches) condemn(list []digest.Digest, grace time.Duration) map[digest.Digest]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	due := map[digest.Digest]bool{}
	for _, d := range list {
		if t.dueLocked(d, grace) && t.condemned[d] == nil {
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

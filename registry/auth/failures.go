package auth

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// failures counts wrong passwords by where they came from and whom they were
// for: guessing one's password does not lock another out, nor the same user
// elsewhere. The zero value is ready, and made for that; another one counts by
// the address alone.
type failures struct {
	most   int           // in a row; 0: maxFailures
	forget time.Duration // one less for each; 0: forgetFailure

	mu   sync.Mutex
	seed maphash.Seed
	of   map[uint64]failed
	now  func() time.Time // nil: time.Now
}

type failed struct {
	count int
	last  time.Time
}

const (
	maxFailures   = 10
	forgetFailure = 10 * time.Second
	maxFailed     = 8192

	// An address may be that of an office: what stops it is more than one user's
	// mistakes, and is forgotten faster.
	maxFromAddress    = 60
	forgetFromAddress = time.Second
)

// key is one name from one origin.
func (f *failures) key(from, name string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keyLocked(from, name)
}

func (f *failures) keyLocked(from, name string) uint64 {
	if f.of == nil {
		f.of, f.seed = map[uint64]failed{}, maphash.MakeSeed()
	}
	return maphash.String(f.seed, from+"\x00"+name)
}

// origin is the client's address; a network of IPv6 counts as one.
func origin(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	addr := ap.Addr().Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return ""
	}
	return prefix.String()
}

func (f *failures) tooMany(key uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left(key) >= cmp.Or(f.most, maxFailures)
}

// lately tells whether there was a failure within a minute.
func (f *failures) lately(key uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.of[key]
	return ok && f.time().Sub(e.last) < time.Minute
}

func (f *failures) add(key uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for old := range f.of {
		if len(f.of) < maxFailed {
			break
		}
		delete(f.of, old)
	}
	f.of[key] = failed{f.left(key) + 1, f.time()}
}

// left is what has not been forgotten.
func (f *failures) left(key uint64) int {
	e := f.of[key]
	return max(0, e.count-int(f.time().Sub(e.last)/cmp.Or(f.forget, forgetFailure)))
}

func (f *failures) time() time.Time {
	if f.now != nil {
		return f.now()
	}
	return time.Now()
}

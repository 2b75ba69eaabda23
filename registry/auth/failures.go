package auth

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// failures counts wrong passwords by where they came from and whom they were
// for: guessing one's password does not lock another out, nor the same user
// elsewhere. The zero value is ready.
type failures struct {
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
	maxFailures   = 10               // in a row
	forgetFailure = 10 * time.Second // one less for each
	maxFailed     = 8192
)

// key is one name from one address; a network of IPv6 counts as one.
func (f *failures) key(remote, name string) uint64 {
	f.mu.Lock()
	if f.of == nil {
		f.of, f.seed = map[uint64]failed{}, maphash.MakeSeed()
	}
	f.mu.Unlock()
	var from string
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		addr := ap.Addr().Unmap().WithZone("")
		bits := 64
		if addr.Is4() {
			bits = 32
		}
		if prefix, err := addr.Prefix(bits); err == nil {
			from = prefix.String()
		}
	}
	return maphash.String(f.seed, from+"\x00"+name)
}

func (f *failures) tooMany(key uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left(key) >= maxFailures
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
	return max(0, e.count-int(f.time().Sub(e.last)/forgetFailure))
}

func (f *failures) time() time.Time {
	if f.now != nil {
		return f.now()
	}
	return time.Now()
}

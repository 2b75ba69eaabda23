// Package limit bounds what clients can ask of a registry: requests by client,
// and uploads under way by all of them.
package limit

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tarehq/tare/registry"
)

// Config has the limits; 0 is none.
type Config struct {
	Rate    int // requests a second that a client may go on with
	Burst   int // requests that it may ask for at once; 0 is as many as Rate
	Uploads int // requests at a time that bring bytes of blobs
}

// Limits holds clients to them.
type Limits struct {
	uploads atomic.Int64
	most    int64
	clients clients
	refused func(reason string)
}

// New makes limits. refused is told of each request that is sent away, and why:
// "rate" or "uploads".
func New(c Config, refused func(reason string)) *Limits {
	l := &Limits{most: int64(c.Uploads), refused: refused}
	if c.Rate > 0 {
		if c.Burst <= 0 {
			c.Burst = c.Rate
		}
		l.clients.each = time.Second / time.Duration(c.Rate)
		l.clients.burst = l.clients.each * time.Duration(c.Burst)
		l.clients.next = make(map[netip.Addr]int64)
		l.clients.start = time.Now()
	}
	return l
}

// Uploads is how many requests are under way that bring bytes of blobs.
func (l *Limits) Uploads() int64 { return l.uploads.Load() }

// Handler has next answer what is within the limits. The client is the
// request's RemoteAddr.
func (l *Limits) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wait := l.clients.take(r.RemoteAddr); wait > 0 {
			l.refuse(w, r, http.StatusTooManyRequests, "rate", wait, "too many requests from this address: wait as long as Retry-After says")
			return
		}
		if !uploads(r) {
			next.ServeHTTP(w, r)
			return
		}
		defer l.uploads.Add(-1)
		if n := l.uploads.Add(1); l.most > 0 && n > l.most {
			l.refuse(w, r, http.StatusServiceUnavailable, "uploads", 2*time.Second, "the registry takes as many uploads as it may: try again when some have ended")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// uploads tells whether the request brings bytes of a blob.
func uploads(r *http.Request) bool {
	switch r.Method {
	case http.MethodPatch, http.MethodPut, http.MethodPost:
		return r.ContentLength != 0 && registry.Noun(r.URL.Path) == "upload"
	}
	return false
}

func (l *Limits) refuse(w http.ResponseWriter, r *http.Request, status int, reason string, wait time.Duration, sentence string) {
	if l.refused != nil {
		l.refused(reason)
	}
	seconds := (wait + time.Second - 1) / time.Second
	w.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
	registry.Refuse(w, r, status, registry.TooManyRequests, sentence)
}

// clients counts requests by the generic cell rate algorithm: of each client it
// keeps when it will have its whole burst again.
type clients struct {
	each, burst time.Duration
	start       time.Time

	mu    sync.Mutex
	next  map[netip.Addr]int64 // nanoseconds after start
	swept int64
}

// maxClients bounds the memory that strangers can have this use, about 4 MB.
const maxClients = 1 << 16

// take counts a request, or tells how long the client has to wait for its next.
func (c *clients) take(remote string) time.Duration {
	if c.each == 0 {
		return 0
	}
	who := network(remote)
	now := int64(time.Since(c.start))
	c.mu.Lock()
	defer c.mu.Unlock()
	next, known := c.next[who]
	next = max(next, now) + int64(c.each)
	if wait := time.Duration(next-now) - c.burst; wait > 0 {
		return wait
	}
	if !known && len(c.next) >= maxClients {
		c.forget(now)
	}
	c.next[who] = next
	return 0
}

// forget makes room: by those who have their whole burst again, looked for once
// a second, or by whoever comes first.
func (c *clients) forget(now int64) {
	if now-c.swept >= int64(time.Second) {
		c.swept = now
		for who, next := range c.next {
			if next <= now {
				delete(c.next, who)
			}
		}
	}
	for who := range c.next {
		if len(c.next) < maxClients {
			return
		}
		delete(c.next, who)
	}
}

// network is what counts as one client: an address, or the /64 of IPv6 that one
// host has for itself. What is no address is all one.
func network(remote string) netip.Addr {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		a, err := netip.ParseAddr(strings.Trim(remote, "[]"))
		if err != nil {
			return netip.Addr{}
		}
		at = netip.AddrPortFrom(a, 0)
	}
	a := at.Addr().Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr()
}

package server

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/network/dns"
)

// maxServers is how many servers of one list are asked.
const maxServers = 8

// upstreams are servers in the order in which they are asked.
type upstreams struct{ list []*upstream }

// upstream is a server to ask.
type upstream struct {
	addr   netip.AddrPort
	inside bool // it is asked from the sandbox's namespace
	// silent is until when it comes last, since it gave no answer: Unix time in
	// nanoseconds.
	silent atomic.Int64
}

func (u *upstreams) add(a netip.Addr, inside bool) {
	if len(u.list) < maxServers {
		u.list = append(u.list, &upstream{addr: netip.AddrPortFrom(a.Unmap(), dns.Address.Port()), inside: inside})
	}
}

// ordered gives those first that were not silent lately.
func (u *upstreams) ordered() []*upstream {
	now := time.Now().UnixNano()
	speaking := make([]*upstream, 0, len(u.list))
	var silent []*upstream
	for _, s := range u.list {
		if s.silent.Load() > now {
			silent = append(silent, s)
		} else {
			speaking = append(speaking, s)
		}
	}
	return append(speaking, silent...)
}

// hosts are the host's servers, as its resolv.conf(5) names them now. They are
// asked from the host's namespace, so a stub that listens on a loopback address
// of the host is as good as any: with systemd-resolved that is the one that
// knows which server is for which domain. No server takes the place of one that
// is not named.
//
// The file is looked at whenever a question is forwarded, which costs less than
// the forwarding by far. A watch would have to follow each link on its path.
type hosts struct {
	path string

	mu      sync.Mutex
	seen    unix.Stat_t
	settled bool // it cannot have changed within the grain of its times
	servers *upstreams
}

// get gives the servers of the moment.
func (h *hosts) get() *upstreams {
	h.mu.Lock()
	defer h.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Stat(h.path, &st); err != nil {
		h.servers = nil
		return &upstreams{}
	}
	same := st.Dev == h.seen.Dev && st.Ino == h.seen.Ino && st.Size == h.seen.Size && st.Mtim == h.seen.Mtim && st.Ctim == h.seen.Ctim
	if h.servers != nil && h.settled && same {
		return h.servers
	}
	content, err := os.ReadFile(h.path)
	if err != nil {
		h.servers = nil
		return &upstreams{}
	}
	const grain = 100 * time.Millisecond
	read := parse(content)
	if h.servers == nil || !h.servers.same(read) { // else who is silent is known
		h.servers = read
	}
	h.seen, h.settled = st, time.Since(time.Unix(st.Ctim.Unix())) > grain
	return h.servers
}

func parse(resolvConf []byte) *upstreams {
	u := &upstreams{}
	for line := range bytes.Lines(resolvConf) {
		words := strings.Fields(string(line))
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			u.add(a, false)
		}
	}
	return u
}

func (u *upstreams) same(v *upstreams) bool {
	if len(u.list) != len(v.list) {
		return false
	}
	for i, s := range u.list {
		if s.addr != v.list[i].addr {
			return false
		}
	}
	return true
}

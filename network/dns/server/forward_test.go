package server

import (
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/network/dns"
)

// wants checks what the name's TXT is.
func (p *client) wants(t testing.TB, when, code string, data ...string) {
	t.Helper()
	got, have := p.ask(t, "far.example", mdns.TypeTXT)
	if got != code || !slices.Equal(have, data) {
		t.Errorf("%s: %s %v, want %s %v", when, got, have, code, data)
	}
}

func (r *started) host(t testing.TB, lines string) {
	t.Helper()
	must(t, os.WriteFile(r.resolvConf, []byte(lines), 0o644))
}

// Other names are the host's servers' to answer, those that its file names at
// the moment, from the host's namespace: also on its loopback addresses.
func TestForwardingFollowsTheHost(t *testing.T) {
	r, p := start(t, time.Minute), container(t)
	r.add(t, p, dns.Sandbox{ID: "s", External: true})
	serve(t, nil, "127.0.0.53:53", "stub")
	serve(t, nil, "127.0.0.2:53", "direct")
	serve(t, nil, "[::1]:53", "six")
	p.wants(t, "without a file", "SERVFAIL")
	r.host(t, "# nameserver 127.0.0.2\nnameserver 127.0.0.53\nsearch x\n")
	p.wants(t, "with the stub", "NOERROR", "stub")
	r.host(t, "nameserver 127.0.0.2\n")
	p.wants(t, "after a change", "NOERROR", "direct")
	next := r.resolvConf + ".next"
	must(t, os.WriteFile(next, []byte("nameserver ::1\n"), 0o644))
	must(t, os.Rename(next, r.resolvConf))
	p.wants(t, "after a replacement", "NOERROR", "six")
	must(t, os.WriteFile(next, []byte("nameserver ::1%lo\n"), 0o644))
	must(t, os.Remove(r.resolvConf))
	must(t, os.Symlink(next, r.resolvConf))
	p.wants(t, "by a link, with a zone", "NOERROR", "six")
	must(t, os.WriteFile(next, []byte("nameserver 127.0.0.2\n"), 0o644))
	p.wants(t, "behind the link", "NOERROR", "direct")
	r.host(t, "")
	p.wants(t, "without a server", "SERVFAIL")
}

// A server that is silent, refuses or fails is followed by the next; one that
// was silent comes last for a while.
func TestForwardingTriesTheNext(t *testing.T) {
	r, p := start(t, time.Minute), container(t)
	r.add(t, p, dns.Sandbox{ID: "s", External: true})
	first, second := serve(t, nil, "127.0.0.2:53", "first"), serve(t, nil, "127.0.0.3:53", "second")
	r.host(t, "nameserver 127.0.0.9\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n")
	p.wants(t, "with a first one that is not there", "NOERROR", "first")
	first.code.Store(mdns.RcodeServerFailure)
	p.wants(t, "with one that fails", "NOERROR", "second")
	first.code.Store(mdns.RcodeRefused)
	p.wants(t, "with one that refuses", "NOERROR", "second")
	second.code.Store(mdns.RcodeNameError)
	p.wants(t, "with one that knows that there is none", "NXDOMAIN", "second")
	second.code.Store(mdns.RcodeServerFailure)
	p.wants(t, "with all failing", "SERVFAIL", "second")
	second.code.Store(mdns.RcodeSuccess)
	if testing.Short() {
		return
	}
	defer first.hold()()
	p.wants(t, "with one that is silent", "NOERROR", "second")
	asked := first.asked.Load()
	p.wants(t, "with one that was silent", "NOERROR", "second")
	if n := first.asked.Load(); n != asked {
		t.Error("a server that was silent is asked again at once")
	}
}

// A truncated answer is passed on, and the question by TCP goes on by TCP;
// EDNS is between the asker and the server.
func TestForwardingKeepsTheMessage(t *testing.T) {
	r, p := start(t, time.Minute), container(t)
	r.add(t, p, dns.Sandbox{ID: "s", External: true})
	serve(t, nil, "127.0.0.2:53", "a text that is long enough to fill five hundred bytes twenty times over")
	r.host(t, "nameserver 127.0.0.2\n")
	q := question("big", mdns.TypeTXT)
	if a := p.exchange(t, "udp", q); !a.Truncated || len(a.Answer) == 20 {
		t.Errorf("by UDP: truncated %v, %d answers", a.Truncated, len(a.Answer))
	}
	if a := p.exchange(t, "tcp", q); a.Truncated || len(a.Answer) != 20 {
		t.Errorf("by TCP: truncated %v, %d answers", a.Truncated, len(a.Answer))
	}
	q.SetEdns0(4096, true)
	if a := p.exchange(t, "udp", q); a.Truncated || len(a.Answer) != 20 || a.IsEdns0() == nil {
		t.Errorf("with EDNS: truncated %v, %d answers", a.Truncated, len(a.Answer))
	}
	// Several on one connection, whose writing side the asker closes.
	conn := p.dial(t, "tcp")
	c := mdns.Conn{Conn: conn}
	for range 3 {
		must(t, c.WriteMsg(q))
	}
	must(t, conn.(*net.TCPConn).CloseWrite())
	for range 3 {
		if _, err := c.ReadMsg(); err != nil {
			t.Error(err)
		}
	}
}

// What is no answer to the question is passed over, and the answer that comes
// after it is taken.
func TestForwardingPassesOverOthers(t *testing.T) {
	r, p := start(t, time.Minute), container(t)
	r.add(t, p, dns.Sandbox{ID: "s", External: true})
	conn, err := net.ListenPacket("udp", "127.0.0.2:53")
	must(t, err)
	defer conn.Close()
	go func() {
		buf := make([]byte, 512)
		n, from, err := conn.ReadFrom(buf)
		var q mdns.Msg
		if err != nil || q.Unpack(buf[:n]) != nil {
			return
		}
		answer := func(change func(*mdns.Msg)) []byte {
			a := new(mdns.Msg).SetReply(&q)
			a.Answer = append(a.Answer, &mdns.TXT{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeTXT, Class: mdns.ClassINET}, Txt: []string{"it"}})
			change(a)
			b, _ := a.Pack()
			return b
		}
		for _, b := range [][]byte{
			nil, {1}, buf[:n],
			answer(func(a *mdns.Msg) { a.Id++ }),
			answer(func(a *mdns.Msg) { a.Question[0].Name = "other.example." }),
			answer(func(a *mdns.Msg) { a.Question[0].Qtype = mdns.TypeA }),
			answer(func(a *mdns.Msg) { a.Question = nil }),
			answer(func(a *mdns.Msg) { a.Question[0].Name = "FAR.example." }),
		} {
			_, _ = conn.WriteTo(b, from)
		}
	}()
	r.host(t, "nameserver 127.0.0.2\n")
	p.wants(t, "after what is no answer", "NOERROR", "it")
}

// The host's servers are not asked for those who reach nothing but their own
// networks; those that a container named are asked from where it is.
func TestForwardingFromInside(t *testing.T) {
	r, internal, own := start(t, time.Minute), container(t), container(t)
	host := serve(t, nil, "127.0.0.2:53", "host's")
	r.host(t, "nameserver 127.0.0.2\n")
	r.add(t, internal, dns.Sandbox{ID: "i"})
	internal.wants(t, "from an internal network", "SERVFAIL")
	if code, _ := internal.ask(t, "single", mdns.TypeA); code != "SERVFAIL" {
		t.Errorf("an unknown name without dots, from an internal network: %s", code)
	}
	serve(t, own, "127.0.0.2:53", "container's")
	r.add(t, own, dns.Sandbox{ID: "o", Servers: addrs("127.0.0.11", "127.0.0.2"), External: true})
	own.wants(t, "with a server of its own", "NOERROR", "container's")
	must(t, r.daemon.Set(t.Context(), dns.Sandbox{ID: "o", Servers: addrs("127.0.0.11")}, nil))
	own.wants(t, "with itself for a server", "SERVFAIL")
	must(t, r.daemon.Set(t.Context(), dns.Sandbox{ID: "o", External: true}, nil))
	if n := host.asked.Load(); n != 0 {
		t.Errorf("the host's server was asked %d times", n)
	}
	own.wants(t, "with the host's again", "NOERROR", "host's")
	// Where ndots was chosen, the search list comes first.
	must(t, r.daemon.Set(t.Context(), dns.Sandbox{ID: "o", External: true, Dots: true}, nil))
	asked := host.asked.Load()
	if code, _ := own.ask(t, "single", mdns.TypeA); code != "NOERROR" || host.asked.Load() != asked {
		t.Errorf("with ndots, a name without dots gets %s", code)
	}
	own.wants(t, "with ndots", "NOERROR", "host's")
}

// Many questions that nobody answers take nothing from others.
func TestForwardingIsBounded(t *testing.T) {
	r, greedy, other := start(t, time.Minute), container(t), container(t)
	r.add(t, greedy, dns.Sandbox{ID: "g", External: true})
	r.add(t, other, dns.Sandbox{ID: "o", External: true, Places: []dns.Place{{NetworkID: "n", Network: "net", Names: []string{"web"}, Addresses: addrs("10.1.0.2")}}})
	tell := serve(t, nil, "127.0.0.2:53", "slow")
	release := tell.hold()
	defer release()
	r.host(t, "nameserver 127.0.0.2\n")
	c := mdns.Conn{Conn: greedy.dial(t, "udp")}
	refused := make(chan int)
	go func() {
		n := 0
		for {
			a, err := c.ReadMsg()
			if err == nil && a.Rcode == mdns.RcodeRefused {
				n++
			}
			if err != nil || a.Id == 1 {
				refused <- n
				return
			}
		}
	}()
	for i := range maxForwards {
		must(t, c.WriteMsg(question(fmt.Sprint("x", i), mdns.TypeTXT)))
		if i%64 == 63 { // the sockets' own queues are short
			testutil.Eventually(t, 10*time.Second, "questions are forwarded", func() bool { return r.forwards.Load() > int32(i-32) })
		}
	}
	testutil.Eventually(t, 10*time.Second, "as many are forwarded as may be", func() bool { return r.forwards.Load() == maxForwards })
	for range 10 {
		must(t, c.WriteMsg(question("more", mdns.TypeTXT)))
	}
	last := question("", mdns.TypeAXFR)
	last.Id = 1
	must(t, c.WriteMsg(last))
	if n := <-refused; n != 11 {
		t.Errorf("%d of 10 questions beyond the bound, and the last, are refused", n)
	}
	release()
	other.wants(t, "from another container", "NOERROR", "slow")
	if code, _ := other.ask(t, "web", mdns.TypeA); code != "NOERROR" {
		t.Errorf("another container's own names: %s", code)
	}
	testutil.Eventually(t, 10*time.Second, "all have ended", func() bool { return r.forwards.Load() == 0 })
}

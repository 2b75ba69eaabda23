package server

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/tarehq/tare/network/dns"
)

// A container is answered on 127.0.0.11:53 by UDP and TCP, though its own server
// has port 53 of all addresses, and though it has rules of its own or flushes
// them all.
func TestAnswersWhateverTheContainerDoes(t *testing.T) {
	r, p := start(t, time.Minute), container(t)
	r.add(t, p, dns.Sandbox{ID: "s", Places: []dns.Place{{NetworkID: "n", Network: "net", Names: []string{"web"}, Addresses: addrs("10.1.0.2", "fd00::2")}}})
	check := func(when string) {
		t.Helper()
		for _, proto := range []string{"udp", "tcp"} {
			code, data := read(p.exchange(t, proto, question("web", mdns.TypeA)))
			if code != "NOERROR" || !slices.Equal(data, []string{"10.1.0.2"}) {
				t.Errorf("%s, by %s: %s %v", when, proto, code, data)
			}
		}
	}
	check("alone")
	own := serve(t, p, "0.0.0.0:53", "own")
	check("beside a server")
	p.run(t, "nft", `table ip mine {
		chain in { type filter hook input priority 0; policy drop; ct state established accept; udp dport 53 accept; tcp dport 53 accept
}
		chain out { type filter hook output priority 0; policy drop; ct state established accept; udp dport 53 accept; tcp dport 53 accept
}
		chain nat { type nat hook output priority -100; ip daddr 10.9.9.9 dnat to 127.0.0.1
}
		chain post { type nat hook postrouting priority 100; oifname != "lo" masquerade
}
}`)
	check("behind rules that let port 53 pass alone")
	p.run(t, "nft", "flush", "ruleset")
	check("after a flush of all rules")
	if n := own.asked.Load(); n != 0 {
		t.Errorf("the container's own server got %d questions", n)
	}
}

// More addresses than an answer can hold are cut off by UDP, and told so; by
// TCP, or when the asker takes more, all are there. Their order changes.
func TestBigAnswers(t *testing.T) {
	r, p := start(t, time.Minute), container(t)
	var all []string
	for i := range 100 {
		a := fmt.Sprintf("10.1.0.%d", i+1)
		all = append(all, a)
		sb := dns.Sandbox{ID: fmt.Sprint("s", i), Places: []dns.Place{{NetworkID: "n", Network: "net", Names: []string{fmt.Sprint("c", i), "all"}, Addresses: addrs(a)}}}
		if i > 0 { // nobody asks from there
			r.names.set(sb)
			continue
		}
		r.add(t, p, sb)
	}
	slices.Sort(all)
	q := question("all", mdns.TypeA)
	a := p.exchange(t, "udp", q)
	a.Compress = true
	if !a.Truncated || len(a.Answer) == 0 || len(a.Answer) == 100 || a.Len() > 512 {
		t.Errorf("by UDP: %d answers, %d bytes, truncated %v", len(a.Answer), a.Len(), a.Truncated)
	}
	a = p.exchange(t, "tcp", q)
	code, data := read(a)
	first := data[0]
	slices.Sort(data)
	if code != "NOERROR" || a.Truncated || !slices.Equal(data, all) {
		t.Errorf("by TCP: %s, truncated %v, %v", code, a.Truncated, data)
	}
	q.SetEdns0(4096, false)
	for i := range 50 {
		a = p.exchange(t, "udp", q)
		code, data = read(a)
		if code != "NOERROR" || a.Truncated || len(data) != 100 || a.IsEdns0() == nil {
			t.Fatalf("with EDNS: %s, truncated %v, %d answers", code, a.Truncated, len(data))
		}
		if data[0] != first {
			return
		}
		if i == 49 {
			t.Error("the order never changes")
		}
	}
}

// What is no question gets an error or nothing, and the next one is answered.
func TestHostilePackets(t *testing.T) {
	r, p := start(t, time.Minute), container(t)
	r.add(t, p, dns.Sandbox{ID: "s", Places: []dns.Place{{NetworkID: "n", Network: "net", Names: []string{"web"}, Addresses: addrs("10.1.0.2")}}})
	two := question("web", mdns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	packed := func(m *mdns.Msg) []byte {
		b, err := m.Pack()
		must(t, err)
		return b
	}
	update := question("web", mdns.TypeSOA)
	update.Opcode = mdns.OpcodeUpdate
	version := question("web", mdns.TypeA)
	version.SetEdns0(512, false)
	version.IsEdns0().SetVersion(3)
	for what, c := range map[string]struct {
		query []byte
		code  int // -1 for no answer
	}{
		"nothing":             {nil, -1},
		"half a header":       {make([]byte, 7), -1},
		"a header alone":      {make([]byte, 12), mdns.RcodeFormatError},
		"an answer":           {packed(new(mdns.Msg).SetReply(question("web", mdns.TypeA))), -1},
		"two questions":       {packed(two), mdns.RcodeFormatError},
		"a cut off question":  {packed(question("web", mdns.TypeA))[:14], mdns.RcodeFormatError},
		"an update":           {packed(update), mdns.RcodeNotImplemented},
		"a zone transfer":     {packed(question("web", mdns.TypeAXFR)), mdns.RcodeRefused},
		"unknown EDNS":        {packed(version), mdns.RcodeBadVers},
		"a pointer to itself": {append(append([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0xc0, 12), 0, 1, 0, 1), mdns.RcodeFormatError},
	} {
		conn := p.dial(t, "udp")
		_, err := conn.Write(c.query)
		must(t, err)
		_, err = conn.Write(packed(question("web", mdns.TypeA)))
		must(t, err)
		in := mdns.Conn{Conn: conn}
		if c.code >= 0 {
			a, err := in.ReadMsg()
			if err != nil || a.Rcode != c.code {
				t.Errorf("%s is answered with %v, %v; want %s", what, a, err, mdns.RcodeToString[c.code])
			}
		}
		a, err := in.ReadMsg()
		if err != nil || len(a.Answer) != 1 {
			t.Errorf("the question after %s: %v %v", what, a, err)
		}
	}
	tcp := p.dial(t, "tcp")
	_, err := tcp.Write([]byte{0xff, 0xff, 1, 2, 3})
	must(t, err)
	if n, err := tcp.Read(make([]byte, 1)); err == nil {
		t.Errorf("a message of 65535 bytes is answered with %d bytes", n)
	}
}

// A container's connections have a bound, and others are none the worse.
func TestConnectionsAreBounded(t *testing.T) {
	r, p, q := start(t, time.Minute), container(t), container(t)
	for i, c := range []*client{p, q} {
		r.add(t, c, dns.Sandbox{ID: fmt.Sprint(i), Places: []dns.Place{{NetworkID: "n", Network: "net", Names: []string{"web"}, Addresses: addrs("10.1.0.2")}}})
	}
	refused := 0
	var open []net.Conn
	for range maxConnections + 10 {
		open = append(open, p.dial(t, "tcp"))
	}
	for _, c := range open[maxConnections:] {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d of 10 connections beyond the bound were closed", refused)
	}
	if code, _ := read(q.exchange(t, "tcp", question("web", mdns.TypeA))); code != "NOERROR" {
		t.Errorf("another container gets %s", code)
	}
}

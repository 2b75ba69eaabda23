package server

import (
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/tarehq/tare/network/dns"
)

// BenchmarkAnswer is one asker, who waits for each answer: what both sides need.
func BenchmarkAnswer(b *testing.B) {
	r, p := start(b, time.Minute), container(b)
	r.add(b, p, dns.Sandbox{ID: "s", Places: []dns.Place{web}})
	conn := p.dial(b, "udp")
	q, err := question("web", mdns.TypeA).Pack()
	must(b, err)
	buf := make([]byte, 512)
	for b.Loop() {
		if _, err := conn.Write(q); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTable is the answer without sockets.
func BenchmarkTable(b *testing.B) {
	s := town()
	q, err := question("web.front", mdns.TypeA).Pack()
	must(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if a, _ := s.answer("db", q, false); len(a) == 0 {
			b.Fatal("no answer")
		}
	}
}

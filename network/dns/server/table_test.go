package server

import (
	"net/netip"
	"slices"
	"testing"

	mdns "github.com/miekg/dns"

	"github.com/tarehq/tare/network/dns"
)

// web and db are on the network front, db and cache on back; cache links to db
// and to somebody who is gone; other is on a network of its own.
func town() *Server {
	s := &Server{names: newTable()}
	front := func(addrs []netip.Addr, names ...string) dns.Place {
		return dns.Place{NetworkID: "f", Network: "front", Names: names, Addresses: addrs}
	}
	back := func(addrs []netip.Addr, names ...string) dns.Place {
		return dns.Place{NetworkID: "b", Network: "Back.End", Names: names, Addresses: addrs}
	}
	linked := back(addrs("10.2.0.3"), "cache")
	linked.Links = map[string]string{"Store": "DB", "web": "gone"}
	for _, sb := range []dns.Sandbox{
		{ID: "web", Places: []dns.Place{front(addrs("10.1.0.1"), "web", "0123456789ab", "www", "a.dotted.name")}},
		{ID: "web2", Places: []dns.Place{front(addrs("10.1.0.4", "fd01::4"), "web2", "www")}},
		{ID: "db", Places: []dns.Place{front(addrs("10.1.0.2"), "db"), back(addrs("10.2.0.2", "fd02::2"), "db", "store2", "w/eird \xc3\xb6")}},
		{ID: "cache", Places: []dns.Place{linked}},
		{ID: "other", Places: []dns.Place{{NetworkID: "o", Network: "front", Names: []string{"other"}, Addresses: addrs("10.3.0.1")}}},
	} {
		s.names.set(sb)
	}
	return s
}

func TestNames(t *testing.T) {
	s := town()
	const unknown = "unknown"
	for _, c := range []struct {
		from, name string
		typ        uint16
		want       []string
	}{
		{"web", "db", mdns.TypeA, []string{"10.1.0.2"}},
		{"web", "DB.", mdns.TypeA, []string{"10.1.0.2"}},
		{"web", "db", mdns.TypeAAAA, nil}, // that is on a network that web is not on
		{"web", "db", mdns.TypeTXT, nil},
		{"web", "db", mdns.TypeMX, nil},
		{"web", "web", mdns.TypeA, []string{"10.1.0.1"}},
		{"web", "0123456789ab", mdns.TypeA, []string{"10.1.0.1"}},
		{"web", "a.dotted.name", mdns.TypeA, []string{"10.1.0.1"}},
		{"web", "a.dotted.name.front", mdns.TypeA, []string{"10.1.0.1"}},
		{"db", "www", mdns.TypeA, []string{"10.1.0.1", "10.1.0.4"}},
		{"db", "www", mdns.TypeAAAA, []string{"fd01::4"}},
		{"db", "www", mdns.TypeANY, []string{"10.1.0.1", "10.1.0.4", "fd01::4"}},
		{"web", "db.front", mdns.TypeA, []string{"10.1.0.2"}},
		{"web", "db.FRONT", mdns.TypeA, []string{"10.1.0.2"}},
		{"web", "db.back.end", mdns.TypeA, []string{unknown}},
		{"web", "cache", mdns.TypeA, []string{unknown}},
		{"web", "other", mdns.TypeA, []string{unknown}}, // a network of the same name
		{"other", "web", mdns.TypeA, []string{unknown}},
		{"web", "db.elsewhere", mdns.TypeA, []string{unknown}},
		{"web", "", mdns.TypeA, []string{unknown}},
		{"web", ".", mdns.TypeNS, []string{unknown}},
		{"db", "db", mdns.TypeA, []string{"10.1.0.2"}}, // of the first network alone
		{"db", "db.back.end", mdns.TypeAAAA, []string{"fd02::2"}},
		{"db", "store2.Back.END", mdns.TypeA, []string{"10.2.0.2"}},
		{"db", "w/eird \xc3\xb6", mdns.TypeA, []string{"10.2.0.2"}},
		{"cache", "store", mdns.TypeA, []string{"10.2.0.2"}},
		{"cache", "store.back.end", mdns.TypeAAAA, []string{"fd02::2"}},
		{"cache", "web", mdns.TypeA, []string{unknown}},
		{"db", "store", mdns.TypeA, []string{unknown}}, // is cache's alone
		{"web", "2.0.1.10.in-addr.arpa", mdns.TypePTR, []string{"db.front."}},
		{"web", "2.0.2.10.in-addr.arpa", mdns.TypePTR, []string{unknown}},
		{"db", "2.0.2.10.IN-addr.arpa.", mdns.TypePTR, []string{"db.Back.End."}},
		{"cache", "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.d.f.ip6.arpa", mdns.TypePTR, []string{"db.Back.End."}},
		{"cache", "2.0.0.0.ip6.arpa", mdns.TypePTR, []string{unknown}},
		{"cache", "zz.0.0.0.in-addr.arpa", mdns.TypePTR, []string{unknown}},
		{"cache", "store", mdns.TypePTR, nil},
		{"gone", "web", mdns.TypeA, []string{unknown}},
		{"gone", "2.0.1.10.in-addr.arpa", mdns.TypePTR, []string{unknown}},
	} {
		q := question(c.name, c.typ)
		b, err := q.Pack()
		must(t, err)
		answer, forward := s.answer(c.from, b, false)
		got := []string{unknown}
		if !forward {
			var a mdns.Msg
			must(t, a.Unpack(answer))
			must(t, q.Unpack(b)) // with the library's escapes
			var code string
			if code, got = read(&a); code != "NOERROR" || !a.RecursionAvailable || a.Id != q.Id || a.Question[0] != q.Question[0] {
				t.Errorf("%s asks for %s: %v", c.from, c.name, &a)
			}
			slices.Sort(got)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s asks for %s %s: %v, want %v", c.from, mdns.TypeToString[c.typ], c.name, got, c.want)
		}
	}
}

// What a sandbox no longer has is gone, and of those that left nothing stays.
func TestNamesVanish(t *testing.T) {
	s := town()
	s.names.set(dns.Sandbox{ID: "web", Places: []dns.Place{{NetworkID: "f", Network: "front", Names: []string{"renamed"}, Addresses: addrs("10.1.0.9")}}})
	for name, want := range map[string]bool{"web": false, "0123456789ab": false, "www": true, "renamed": true} {
		if _, known := s.names.addresses("db", name); known != want {
			t.Errorf("%s is known: %v, want %v", name, known, want)
		}
	}
	if name := s.names.name("db", netip.MustParseAddr("10.1.0.1")); name != "" {
		t.Errorf("the old address is %s", name)
	}
	for _, id := range []string{"web", "web2", "db", "cache", "other", "unknown"} {
		s.names.drop(id)
	}
	if len(s.names.networks)+len(s.names.sandboxes) != 0 {
		t.Errorf("left: %v %v", s.names.networks, s.names.sandboxes)
	}
}

// FuzzAnswer: whatever is asked, the answer is one to it, not longer than the
// asker takes, and can be read.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"db", "www", "x.y.z", "2.0.1.10.in-addr.arpa"} {
		q := question(name, mdns.TypeA)
		b, err := q.Pack()
		must(f, err)
		f.Add(b)
		q.SetEdns0(700, true)
		if b, err = q.Pack(); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	s := town()
	f.Fuzz(func(t *testing.T, query []byte) {
		a, forward := s.answer("db", query, false)
		if a == nil {
			return
		}
		if forward {
			t.Error("answered and forwarded")
		}
		var m mdns.Msg
		if err := m.Unpack(a); err != nil && m.Rcode == mdns.RcodeSuccess || len(a) < headerSize || a[0] != query[0] || a[1] != query[1] || a[2]&0x80 == 0 {
			t.Errorf("the answer % x: %v", a, err)
		}
		if len(a) > max(512, len(query)) && m.IsEdns0() == nil {
			t.Errorf("%d bytes are answered to somebody who takes 512", len(a))
		}
		_ = answers(query, a)
		_ = single(query)
	})
}

package server

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

const (
	headerSize = 12
	// ttl of our answers: a container may stop at any moment, and whoever
	// caches its address talks to nobody, or to the next one that gets it.
	ttl = 0
	// udpSize is what we offer to receive by UDP.
	udpSize = 1232
)

// answer gives the answer to a question of the sandbox, at most limit bytes
// long if that is not 0 and as EDNS allows; or forward, if somebody else has to
// be asked; or neither for what deserves no answer.
func (s *Server) answer(sandbox string, query []byte, tcp bool) (answer []byte, forward bool) {
	const response = 1 << 7
	if len(query) < headerSize || query[2]&response != 0 {
		return nil, false
	}
	var q mdns.Msg
	if err := q.Unpack(query); err != nil {
		return failure(query, mdns.RcodeFormatError), false
	}
	if q.Opcode != mdns.OpcodeQuery {
		return failure(query, mdns.RcodeNotImplemented), false
	}
	if len(q.Question) != 1 {
		return failure(query, mdns.RcodeFormatError), false
	}
	switch q.Question[0].Qtype {
	case mdns.TypeAXFR, mdns.TypeIXFR: // have many messages for an answer
		return failure(query, mdns.RcodeRefused), false
	}
	records, known := s.records(sandbox, q.Question[0])
	if !known {
		return nil, true
	}
	return pack(&q, records, tcp), false
}

// records gives those of a question about the sandbox's own networks; none for
// a name that is known and has none of the type.
func (s *Server) records(sandbox string, q mdns.Question) ([]mdns.RR, bool) {
	if q.Qclass != mdns.ClassINET {
		return nil, false
	}
	header := mdns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: mdns.ClassINET, Ttl: ttl}
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	if addr, ok := reversed(name); ok && q.Qtype == mdns.TypePTR {
		host := s.names.name(sandbox, addr)
		if host == "" {
			return nil, false
		}
		return []mdns.RR{&mdns.PTR{Hdr: header, Ptr: mdns.Fqdn(host)}}, true
	}
	addresses, known := s.names.addresses(sandbox, name)
	if !known {
		return nil, false
	}
	var records []mdns.RR
	for _, a := range addresses {
		switch {
		case a.Is4() && (q.Qtype == mdns.TypeA || q.Qtype == mdns.TypeANY):
			header.Rrtype = mdns.TypeA
			records = append(records, &mdns.A{Hdr: header, A: net.IP(a.AsSlice())})
		case a.Is6() && (q.Qtype == mdns.TypeAAAA || q.Qtype == mdns.TypeANY):
			header.Rrtype = mdns.TypeAAAA
			records = append(records, &mdns.AAAA{Hdr: header, AAAA: net.IP(a.AsSlice())})
		}
	}
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	return records, true
}

// pack makes the answer with the records, or with as many as the asker takes.
func pack(q *mdns.Msg, records []mdns.RR, tcp bool) []byte {
	limit := mdns.MinMsgSize
	var a mdns.Msg
	a.SetReply(q)
	a.RecursionAvailable, a.Compress = true, true
	if opt := q.IsEdns0(); opt != nil {
		a.SetEdns0(udpSize, opt.Do())
		limit = max(limit, int(opt.UDPSize()))
		if opt.Version() != 0 { // RFC 6891, 6.1.3
			a.Rcode, records = mdns.RcodeBadVers, nil
		}
	}
	a.Answer = records
	if tcp {
		limit = mdns.MaxMsgSize
	}
	a.Truncate(limit)
	b, err := a.Pack()
	if err != nil {
		return nil
	}
	return b
}

// failure answers with an error and the question as far as it can be read.
func failure(query []byte, rcode byte) []byte {
	const response, recursionAvailable, opcodeAndDesired, checkingDisabled = 1 << 7, 1 << 7, 0x79, 1 << 4
	end := questionEnd(query)
	a := slices.Clone(query[:max(end, headerSize)])
	a[2] = a[2]&opcodeAndDesired | response
	a[3] = a[3]&checkingDisabled | recursionAvailable | rcode
	clear(a[4:headerSize])
	if end > 0 {
		binary.BigEndian.PutUint16(a[4:], 1)
	}
	return a
}

// questionEnd is where the only question of a message ends, 0 if there is none
// or another number.
func questionEnd(msg []byte) int {
	if len(msg) < headerSize || binary.BigEndian.Uint16(msg[4:]) != 1 {
		return 0
	}
	for at := headerSize; at < len(msg); at += 1 + int(msg[at]) {
		switch {
		case msg[at] == 0 && at+5 <= len(msg):
			return at + 5
		case msg[at] == 0 || msg[at] > 63: // cut off; a pointer, to nowhere
			return 0
		}
	}
	return 0
}

// reversed reads the name of a reverse look-up.
func reversed(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := 62; i >= 0; i -= 2 {
		if i < 62 && rest[i+1] != '.' {
			return netip.Addr{}, false
		}
		text.WriteByte(rest[i])
		if i%8 == 0 && i > 0 {
			text.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(text.String())
	return a, err == nil && a.Is6()
}

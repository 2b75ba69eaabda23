package firewall

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// kind is a type of a set's field.
type kind struct {
	name string
	nft  nftables.SetDatatype
}

var (
	kindName    = kind{"ifname", nftables.TypeIFName}
	kindMAC     = kind{"ether_addr", nftables.TypeEtherAddr}
	kindProto   = kind{"inet_proto", nftables.TypeInetProto}
	kindService = kind{"inet_service", nftables.TypeInetService}
	kindAddr4   = kind{"ipv4_addr", nftables.TypeIPAddr}
	kindAddr6   = kind{"ipv6_addr", nftables.TypeIP6Addr}
	kindPort    = kind{"iface_index", nftables.TypeIFIndex}
)

func kindAddr(f Family) kind {
	if f == IP6 {
		return kindAddr6
	}
	return kindAddr4
}

// word is the number of the 4-byte register i. Each field takes as many words as
// it needs; in sets that is also how keys are padded.
func word(i int) uint32 { return uint32(unix.NFT_REG32_00 + i) }

func words(bytes int) int { return (bytes + 3) / 4 }

// field is something of a packet that can be loaded into registers.
type field struct {
	text string
	size int
	load func(register uint32) expr.Any
}

func meta(text string, key expr.MetaKey, size int) field {
	return field{text, size, func(r uint32) expr.Any { return &expr.Meta{Key: key, Register: r} }}
}

func payload(text string, base expr.PayloadBase, offset, size int) field {
	return field{text, size, func(r uint32) expr.Any {
		return &expr.Payload{DestRegister: r, Base: base, Offset: uint32(offset), Len: uint32(size)}
	}}
}

const (
	linkHeader      = expr.PayloadBaseLLHeader
	networkHeader   = expr.PayloadBaseNetworkHeader
	transportHeader = expr.PayloadBaseTransportHeader
)

var (
	iifname   = meta("iifname", expr.MetaKeyIIFNAME, unix.IFNAMSIZ)
	oifname   = meta("oifname", expr.MetaKeyOIFNAME, unix.IFNAMSIZ)
	l4proto   = meta("meta l4proto", expr.MetaKeyL4PROTO, 1)
	protocol  = meta("meta protocol", expr.MetaKeyPROTOCOL, 2)
	thDport   = payload("th dport", transportHeader, 2, 2)
	icmp6Type = payload("icmpv6 type", transportHeader, 0, 1)
	ndTarget  = payload("@th,64,128", transportHeader, 8, 16)
	etherSrc  = payload("ether saddr", linkHeader, 6, 6)
	etherDst  = payload("ether daddr", linkHeader, 0, 6)
	arpMAC    = payload("arp saddr ether", networkHeader, 8, 6)
	arpIP     = payload("arp saddr ip", networkHeader, 14, 4)

	ipProtocol = payload("ip protocol", networkHeader, 9, 1)
	nextHeader = payload("ip6 nexthdr", networkHeader, 6, 1)
)

func saddr(f Family) field {
	if f == IP6 {
		return payload("ip6 saddr", networkHeader, 8, 16)
	}
	return payload("ip saddr", networkHeader, 12, 4)
}

func daddr(f Family) field {
	if f == IP6 {
		return payload("ip6 daddr", networkHeader, 24, 16)
	}
	return payload("ip daddr", networkHeader, 16, 4)
}

// match is one condition.
type match struct {
	text  string
	exprs func(sets map[string]uint32) []expr.Any
}

func (m match) String() string { return m.text }

// load gives the expressions that put the fields behind each other.
func load(fields []field) (out []expr.Any) {
	at := 0
	for _, f := range fields {
		out = append(out, f.load(word(at)))
		at += words(f.size)
	}
	return out
}

func concat(fields []field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.text
	}
	return strings.Join(names, " . ")
}

// in matches what is an element of the set.
func in(set string, fields ...field) match { return lookup(set, false, fields) }

// notIn matches what is not.
func notIn(set string, fields ...field) match { return lookup(set, true, fields) }

func lookup(set string, invert bool, fields []field) match {
	operator := " "
	if invert {
		operator = " != "
	}
	return match{concat(fields) + operator + "@" + set, func(sets map[string]uint32) []expr.Any {
		return append(load(fields), &expr.Lookup{SourceRegister: word(0), SetName: set, SetID: sets[set], Invert: invert})
	}}
}

// is matches a field that has the value.
func is(f field, text string, value []byte) match {
	return match{f.text + " " + text, func(map[string]uint32) []expr.Any {
		return []expr.Any{f.load(word(0)), &expr.Cmp{Op: expr.CmpOpEq, Register: word(0), Data: value}}
	}}
}

// isNot matches one that has another.
func isNot(f field, text string, value []byte) match {
	return match{f.text + " != " + text, func(map[string]uint32) []expr.Any {
		return []expr.Any{f.load(word(0)), &expr.Cmp{Op: expr.CmpOpNeq, Register: word(0), Data: value}}
	}}
}

func named(f field, name string) match    { return is(f, fmt.Sprintf("%q", name), ifname(name)) }
func notNamed(f field, name string) match { return isNot(f, fmt.Sprintf("%q", name), ifname(name)) }

// begins matches an interface whose name begins so.
func begins(f field, prefix string) match {
	return is(f, fmt.Sprintf("%q", prefix+"*"), []byte(prefix))
}

// within matches an address in the prefix, outside one that is not.
func within(f field, p netip.Prefix) match  { return masked(f, p, expr.CmpOpEq, " ") }
func outside(f field, p netip.Prefix) match { return masked(f, p, expr.CmpOpNeq, " != ") }

func masked(f field, p netip.Prefix, op expr.CmpOp, operator string) match {
	text := p.String()
	if p.IsSingleIP() {
		text = p.Addr().String()
	}
	return match{f.text + operator + text, func(map[string]uint32) []expr.Any {
		out := []expr.Any{f.load(word(0))}
		if !p.IsSingleIP() {
			mask := net.CIDRMask(p.Bits(), p.Addr().BitLen())
			out = append(out, &expr.Bitwise{SourceRegister: word(0), DestRegister: word(0), Len: uint32(f.size), Mask: mask, Xor: make([]byte, f.size)})
		}
		return append(out, &expr.Cmp{Op: op, Register: word(0), Data: p.Masked().Addr().AsSlice()})
	}}
}

// statusDNAT is IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h.
const statusDNAT = 1 << 5

var (
	established = connection("ct state established,related", expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	redirected  = connection("ct status dnat", expr.CtKeySTATUS, statusDNAT)
	toHost      = match{"fib daddr type local", func(map[string]uint32) []expr.Any {
		return []expr.Any{
			&expr.Fib{Register: word(0), ResultADDRTYPE: true, FlagDADDR: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: word(0), Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		}
	}}
)

// connection matches when any of the bits is set.
func connection(text string, key expr.CtKey, bits uint32) match {
	return match{text, func(map[string]uint32) []expr.Any {
		return []expr.Any{
			&expr.Ct{Key: key, Register: word(0)},
			&expr.Bitwise{SourceRegister: word(0), DestRegister: word(0), Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: word(0), Data: make([]byte, 4)},
		}
	}}
}

// marked matches packets whose mark is the value as far as the mask tells.
func marked(value, mask uint32) match {
	text := fmt.Sprintf("meta mark 0x%08x", value)
	if mask != ^uint32(0) {
		text = fmt.Sprintf("meta mark & 0x%08x == 0x%08x", mask, value&mask)
	}
	return match{text, func(map[string]uint32) []expr.Any {
		out := []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: word(0)}}
		if mask != ^uint32(0) {
			out = append(out, &expr.Bitwise{SourceRegister: word(0), DestRegister: word(0), Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4)})
		}
		return append(out, &expr.Cmp{Op: expr.CmpOpEq, Register: word(0), Data: binaryutil.NativeEndian.PutUint32(value & mask)})
	}}
}

func transport(name string, proto byte) match { return is(l4proto, name, []byte{proto}) }
func dport(port uint16) match {
	return is(thDport, fmt.Sprint(port), binary.BigEndian.AppendUint16(nil, port))
}
func frame(name string, etherType uint16) match {
	return is(protocol, name, binary.BigEndian.AppendUint16(nil, etherType))
}
func icmp6(name string, typ byte) match { return is(icmp6Type, name, []byte{typ}) }

// notPort matches what goes to another port.
func notPort(port uint16) match {
	return isNot(thDport, fmt.Sprint(port), binary.BigEndian.AppendUint16(nil, port))
}

// unfragmented matches an IPv4 packet that is whole: no offset, and no more to
// come.
var unfragmented = match{"ip frag-off & 0x3fff == 0x0", func(map[string]uint32) []expr.Any {
	return []expr.Any{
		payload("", networkHeader, 6, 2).load(word(0)),
		&expr.Bitwise{SourceRegister: word(0), DestRegister: word(0), Len: 2, Mask: []byte{0x3f, 0xff}, Xor: make([]byte, 2)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: word(0), Data: make([]byte, 2)},
	}
}}

// verdict is what becomes of a packet.
type verdict struct {
	text  string
	exprs func(sets map[string]uint32) []expr.Any
	last  string // an expression behind the others that the library does not have
}

func final(text string, kind expr.VerdictKind, chain string) verdict {
	return verdict{text: text, exprs: func(map[string]uint32) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}} }}
}

var (
	accept     = final("accept", expr.VerdictAccept, "")
	drop       = final("drop", expr.VerdictDrop, "")
	back       = final("return", expr.VerdictReturn, "")
	masquerade = verdict{text: "masquerade", exprs: func(map[string]uint32) []expr.Any { return []expr.Any{&expr.Masq{}} }}
)

func jump(chain string) verdict  { return final("jump "+chain, expr.VerdictJump, chain) }
func enter(chain string) verdict { return final("goto "+chain, expr.VerdictGoto, chain) }

// leaveAs makes a packet's source the address.
func leaveAs(a netip.Addr) verdict {
	return verdict{text: "snat to " + a.String(), exprs: func(map[string]uint32) []expr.Any {
		nat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(familyOf(a)), RegAddrMin: word(0)}
		return []expr.Any{&expr.Immediate{Register: word(0), Data: a.AsSlice()}, nat}
	}}
}

// redirect looks in the map for where the packet shall go. The map's values are
// an address, and a port if it says so.
func redirect(f Family, set string, port bool, key ...field) verdict {
	to := "dnat to "
	if port {
		to = "dnat " + f.String() + " to "
	}
	return verdict{text: to + concat(key) + " map @" + set, exprs: func(sets map[string]uint32) []expr.Any {
		nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f), RegAddrMin: word(0)}
		if port {
			nat.RegProtoMin = word(words(daddr(f).size))
		}
		return append(load(key),
			&expr.Lookup{SourceRegister: word(0), DestRegister: word(0), IsDestRegSet: true, SetName: set, SetID: sets[set]}, nat)
	}}
}

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IP4
	}
	return IP6
}

// ifname is an interface's name as the kernel compares it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// cell is a value of one field of an element.
type cell struct {
	text       string
	first, end []byte // end is first but for an interval
}

func single(text string, value []byte) cell {
	value = append(slices.Clip(value), make([]byte, 4*words(len(value))-len(value))...)
	return cell{text, value, value}
}

func cellName(name string) cell { return single(fmt.Sprintf("%q", name), ifname(name)) }
func cellMAC(mac string) cell {
	hw, _ := net.ParseMAC(mac) // checked by whoever gave it out
	return single(mac, hw)
}
func cellAddr(a netip.Addr) cell { return single(a.String(), a.AsSlice()) }
func cellProto(name string) cell { return single(name, []byte{protocols[name]}) }

func cellPort(port uint16) cell {
	return single(fmt.Sprint(port), binary.BigEndian.AppendUint16(nil, port))
}

func cellPorts(first, last uint16) cell {
	c := cellPort(first)
	if first != last {
		c.text, c.end = fmt.Sprintf("%d-%d", first, last), cellPort(last).first
	}
	return c
}

func cellPrefix(p netip.Prefix) cell {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < p.Addr().BitLen(); i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	return cell{p.String(), p.Addr().AsSlice(), last}
}

// element makes an element of cells; value is empty for a set.
func element(f Family, set string, interval bool, key []cell, value ...cell) Element {
	e := Element{Family: f, Set: set}
	text := func(cells []cell) string {
		names := make([]string, len(cells))
		for i, c := range cells {
			names[i] = c.text
		}
		return strings.Join(names, " . ")
	}
	e.Text = text(key)
	for _, c := range key {
		e.key = append(e.key, c.first...)
		if interval {
			e.end = append(e.end, c.end...)
		}
	}
	if len(value) > 0 {
		e.Text += " : " + text(value)
		for _, c := range value {
			e.value = append(e.value, c.first...)
		}
	}
	return e
}

var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

func nativeUint32(n uint32) []byte { return binaryutil.NativeEndian.PutUint32(n) }

package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// firewall applies rulesets to the kernel. Each method is one transaction of
// nf_tables: all of it happens or nothing.
type firewall struct {
	mu    sync.Mutex
	table *nftables.Table
}

func newFirewall(table string) *firewall {
	return &firewall{table: &nftables.Table{Name: table, Family: nftables.TableFamilyIPv4}}
}

// elementsPerMessage keeps a list of elements below the 64 KiB that a netlink
// attribute can hold.
const elementsPerMessage = 400

// transact sends what fill puts on the connection.
func (f *firewall) transact(fill func(*nftables.Conn) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	// The kernel takes a transaction in one message, and answers each of its
	// parts before the first is read.
	conn, err := nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return c.SetWriteBuffer(16 << 20)
	}))
	if err != nil {
		return err
	}
	if err := fill(conn); err != nil {
		return err
	}
	return conn.Flush()
}

// exists tells whether the table is there.
func (f *firewall) exists() (bool, error) { return tableExists(f.table.Name) }

// replace makes the table as r wants it, whatever it was before. Connections
// that are established keep their translation, which is conntrack's.
func (f *firewall) replace(r ruleset) error {
	err := f.transact(func(conn *nftables.Conn) error {
		// Deleting what may not exist fails, adding what exists does not.
		conn.AddTable(f.table)
		conn.DelTable(f.table)
		conn.AddTable(f.table)
		ids, err := f.addMaps(conn, r.Elements)
		if err != nil {
			return err
		}
		for _, c := range r.chains() {
			f.addChain(conn, c, ids)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("replace the nftables table %s: %w", f.table.Name, err)
	}
	return nil
}

// add publishes and remove withdraws ports, in the table as it stands.
func (f *firewall) add(elements []element) error {
	return f.change(elements, (*nftables.Conn).SetAddElements)
}

func (f *firewall) remove(elements []element) error {
	return f.change(elements, (*nftables.Conn).SetDeleteElements)
}

func (f *firewall) change(elements []element, do func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	if len(elements) == 0 {
		return nil
	}
	return f.transact(func(conn *nftables.Conn) error {
		for _, t := range mapTypes {
			for part := range slices.Chunk(encodeElements(elements, t.name), elementsPerMessage) {
				if err := do(conn, f.set(t.name), part); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// set describes the map of the name.
func (f *firewall) set(name string) *nftables.Set {
	key := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	if strings.HasPrefix(name, "address_") {
		key = slices.Insert(key, 0, nftables.TypeIPAddr)
	}
	s := &nftables.Set{Table: f.table, Name: name, IsMap: true, KeyType: nftables.MustConcatSetType(key...), DataType: nftables.TypeIPAddr}
	if name == mapRanges || name == mapAddressRanges {
		s.Interval, s.Concatenation = true, true
	} else {
		s.DataType = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	}
	return s
}

// addMaps makes the maps and returns the numbers by which the rules of the
// same transaction refer to them.
func (f *firewall) addMaps(conn *nftables.Conn, elements []element) (map[string]uint32, error) {
	ids := map[string]uint32{}
	for _, t := range mapTypes {
		set := f.set(t.name)
		if err := conn.AddSet(set, nil); err != nil {
			return nil, err
		}
		ids[t.name] = set.ID
		for part := range slices.Chunk(encodeElements(elements, t.name), elementsPerMessage) {
			if err := conn.SetAddElements(set, part); err != nil {
				return nil, err
			}
		}
	}
	return ids, nil
}

func (f *firewall) addChain(conn *nftables.Conn, c chain, ids map[string]uint32) {
	made := &nftables.Chain{Name: c.name, Table: f.table}
	if c.hook != "" {
		accept := nftables.ChainPolicyAccept
		made.Type, made.Policy = nftables.ChainType(c.kind), &accept
		made.Hooknum, made.Priority = hooks[c.hook], priorities[c.priority]
	}
	conn.AddChain(made)
	for _, r := range c.rules {
		var exprs []expr.Any
		for _, m := range r.matches {
			exprs = append(exprs, m.exprs()...)
		}
		conn.AddRule(&nftables.Rule{Table: f.table, Chain: made, Exprs: append(exprs, r.verdict.exprs(ids)...)})
	}
}

var hooks = map[string]*nftables.ChainHook{
	"prerouting": nftables.ChainHookPrerouting, "output": nftables.ChainHookOutput,
	"postrouting": nftables.ChainHookPostrouting, "forward": nftables.ChainHookForward,
}

var priorities = map[string]*nftables.ChainPriority{
	"raw": nftables.ChainPriorityRaw, "dstnat": nftables.ChainPriorityNATDest, "-100": nftables.ChainPriorityNATDest,
	"srcnat": nftables.ChainPriorityNATSource, "filter": nftables.ChainPriorityFilter,
}

// The registers: 1 is the first 16 bytes, the others are the 4-byte words of
// the same space, of which word 0 is where register 1 begins.
const (
	register = unix.NFT_REG_1
	word1    = unix.NFT_REG32_01
	word2    = unix.NFT_REG32_02
)

// Header offsets in bytes: IPv4 source and destination, TCP's and UDP's
// destination port.
const (
	offsetSource, offsetDestination = 12, 16
	offsetPort                      = 2
)

// statusDNAT is IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h.
const statusDNAT = 1 << 5

func (m match) exprs() []expr.Any {
	op := expr.CmpOpEq
	if m.not {
		op = expr.CmpOpNeq
	}
	switch m.field {
	case "iifname", "oifname":
		key := expr.MetaKeyIIFNAME
		if m.field == "oifname" {
			key = expr.MetaKeyOIFNAME
		}
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, m.name)
		return []expr.Any{&expr.Meta{Key: key, Register: register}, &expr.Cmp{Op: op, Register: register, Data: name}}
	case "saddr", "daddr":
		offset := uint32(offsetSource)
		if m.field == "daddr" {
			offset = offsetDestination
		}
		mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-m.prefix.Bits()))
		return []expr.Any{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: mask, Xor: make([]byte, 4)},
			&expr.Cmp{Op: op, Register: register, Data: m.prefix.Masked().Addr().AsSlice()},
		}
	case "state":
		return connection(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	case "status":
		return connection(expr.CtKeySTATUS, statusDNAT)
	}
	return []expr.Any{
		&expr.Fib{Register: register, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: op, Register: register, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// connection matches when any of the bits is set.
func connection(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

func (v verdict) exprs(ids map[string]uint32) []expr.Any {
	switch v.kind {
	case "accept":
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	case "drop":
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	case "jump":
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chainPublish}}
	case "masquerade":
		return []expr.Any{&expr.Masq{}}
	}
	var key []expr.Any
	proto, port := uint32(register), uint32(word1)
	if strings.HasPrefix(v.lookup, "address_") {
		proto, port = word1, word2
		key = append(key, &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offsetDestination, Len: 4})
	}
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: register}
	if v.lookup == mapPorts || v.lookup == mapAddressPorts {
		nat.RegProtoMin = word1
	}
	return append(key,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: proto},
		&expr.Payload{DestRegister: port, Base: expr.PayloadBaseTransportHeader, Offset: offsetPort, Len: 2},
		&expr.Lookup{SourceRegister: register, DestRegister: register, IsDestRegSet: true, SetName: v.lookup, SetID: ids[v.lookup]},
		nat,
	)
}

// encodeElements gives the map's own elements as the kernel takes them: each
// field of a key or value padded to 4 bytes.
func encodeElements(elements []element, mapName string) []nftables.SetElement {
	var out []nftables.SetElement
	for _, e := range elements {
		if e.mapName() != mapName {
			continue
		}
		enc := nftables.SetElement{Key: elementKey(e.HostIP, e.Proto, e.First), Val: e.Target.AsSlice()}
		if e.Port == 0 {
			enc.KeyEnd = elementKey(e.HostIP, e.Proto, e.Last)
		} else {
			enc.Val = append(binary.BigEndian.AppendUint16(enc.Val, e.Port), 0, 0)
		}
		out = append(out, enc)
	}
	return out
}

func elementKey(host netip.Addr, proto string, port uint16) []byte {
	var key []byte
	if host.IsValid() {
		key = host.AsSlice()
	}
	key = append(key, protocols[proto], 0, 0, 0)
	return append(binary.BigEndian.AppendUint16(key, port), 0, 0)
}

var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}

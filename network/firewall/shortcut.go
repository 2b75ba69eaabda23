package firewall

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What a container sends to its neighbour on the bridge crosses the bridge, and
// where br_netfilter is on also the hooks of IP with connection tracking. With
// Shortcut it goes from the one's port straight out of the other's: the guard of
// the family bridge is repeated here at the port, for what has a pin and only
// for what it would let pass untouched, and all else takes the long way. So does
// what is in fragments, or the tracking there would wait for pieces that never
// come.

// Sets and chains of the family netdev besides the pins; a network's own end in
// its bridge's name.
const (
	chainShortcut = "neighbours-" // the network's bridge, and the ports on it
	setWay4       = "way4-"       // MAC address . address -> the port that leads there
	setWay6       = "way6-"
)

// shortcut tells whether the network's neighbours reach each other by the
// shortcut.
func (o Options) shortcut(n Network) bool { return o.Shortcut && n.ICC && n.MAC != "" }

// shortcuts is the table of the family netdev, with empty sets.
func (o Options) shortcuts(networks []Network) (t Table, wanted bool) {
	t = Table{Family: Netdev, Name: o.Table, Sets: []Set{
		{Name: setPins4, Key: []kind{kindName, kindMAC, kindAddr4}},
		{Name: setPins6, Key: []kind{kindName, kindMAC, kindAddr6}},
	}}
	for _, n := range networks {
		if !o.shortcut(n) {
			continue
		}
		c := hooked(chainShortcut+n.Bridge, "filter", "ingress", lastPriority,
			[]Rule{when(accept, is(etherDst, n.MAC, cellMAC(n.MAC).first[:6]))}) // most of the rest
		for _, f := range [...]Family{IP4, IP6} {
			if !n.subnet(f).IsValid() {
				continue
			}
			way, pins, client := setWay4+n.Bridge, setPins4, uint16(dhcp4Client)
			if f == IP6 {
				way, pins, client = setWay6+n.Bridge, setPins6, dhcp6Client
			}
			t.Sets = append(t.Sets, Set{Name: way, Key: []kind{kindMAC, kindAddr(f)}, Value: []kind{kindPort}})
			pin, to := in(pins, iifname, etherSrc, saddr(f)), sendTo(way, etherDst, daddr(f))
			c.Rules = append(c.Rules, when(to, append(whole(f, "tcp"), pin)...),
				when(to, append(whole(f, "udp"), notPort(client), pin)...))
		}
		t.Chains = append(t.Chains, c)
	}
	return t, len(t.Chains) > 0
}

// whole matches packets of the protocol that are no fragment and have no
// extension header.
func whole(f Family, proto string) []match {
	number := []byte{protocols[proto]}
	if f == IP6 {
		return []match{frame("ip6", unix.ETH_P_IPV6), is(nextHeader, proto, number)}
	}
	return []match{frame("ip", unix.ETH_P_IP), is(ipProtocol, proto, number), unfragmented}
}

// shortcuts gives the elements of a place whose network has shortcuts; all are
// the sandbox's addresses, own those that the place has.
func (p Place) shortcuts(n Network, all, own []netip.Addr) (out []Element) {
	at := []cell{cellName(p.Port), cellMAC(p.MAC)}
	out = append(out, hook(n, p.Port))
	for _, a := range all {
		pins := setPins4
		if a.Is6() {
			pins = setPins6
		}
		out = append(out, element(Netdev, pins, false, append(slices.Clip(at), cellAddr(a))))
	}
	for _, a := range own {
		if n.subnet(familyOf(a)).IsValid() {
			out = append(out, p.way(n, a))
		}
	}
	return out
}

// way is the element that leads to one of the place's addresses.
func (p Place) way(n Network, a netip.Addr) Element {
	set := setWay4
	if a.Is6() {
		set = setWay6
	}
	e := element(Netdev, set+n.Bridge, false, []cell{cellMAC(p.MAC), cellAddr(a)}, cellName(p.Port))
	e.device = p.Port
	return e
}

// hook puts an interface among those whose frames go through the network's
// chain. It is an element like others, but that it goes with the interface.
func hook(n Network, port string) Element {
	e := element(Netdev, chainShortcut+n.Bridge, false, []cell{cellName(port)})
	e.device, e.hook = port, true
	return e
}

// sendTo puts the frame out of the interface that the map has for it.
func sendTo(set string, key ...field) verdict {
	return verdict{text: "fwd to " + concat(key) + " map @" + set, exprs: func(map[string]uint32) []expr.Any {
		return append(load(key), &expr.Lookup{SourceRegister: word(0), DestRegister: word(0), IsDestRegSet: true, SetName: set})
	}, last: "fwd"}
}

// replaceShortcuts makes the table anew or, if it is not wanted, deletes it. The
// kernel may not have what it takes: Linux 6.4 is the first with chains that get
// interfaces later. Then all frames take the long way.
func (f *Firewall) replaceShortcuts(r Ruleset) (made bool) {
	t, wanted := r.Table(Netdev)
	// A chain without any of its interfaces cannot be made; whoever makes its
	// bridge anew makes the tables anew.
	t.Chains = slices.DeleteFunc(slices.Clone(t.Chains), func(c Chain) bool {
		return !slices.ContainsFunc(c.Devices, func(e Element) bool { _, ok := indexOf(e.device); return ok })
	})
	table := f.table(Netdev)
	err := f.transact(func(conn *nftables.Conn) error {
		conn.AddTable(table)
		conn.DelTable(table)
		if !wanted {
			return nil
		}
		conn.AddTable(table)
		return addTable(conn, table, t)
	})
	if wanted && err == nil {
		err = f.sendRules(table, t.Chains)
	}
	if wanted && err != nil {
		slog.Info("frames between neighbours take the way by the bridge, since the kernel refuses a shorter one", "table", f.name, "err", err)
	}
	return wanted && err == nil
}

// addHooks adds interfaces to chains.
func (f *Firewall) addHooks(hooks []Element) {
	var batch []netlink.Message
	for _, e := range hooks {
		if _, ok := indexOf(e.device); !ok {
			continue
		}
		b := []byte{byte(Netdev), unix.NFNETLINK_V0, 0, 0}
		b = appendText(b, unix.NFTA_CHAIN_TABLE, f.name)
		b = appendText(b, unix.NFTA_CHAIN_NAME, e.Set)
		b, hook := begin(b, unix.NFTA_CHAIN_HOOK)
		b = appendAttribute(b, unix.NFTA_HOOK_HOOKNUM, binary.BigEndian.AppendUint32(nil, uint32(*nftables.ChainHookIngress)))
		b = appendAttribute(b, unix.NFTA_HOOK_PRIORITY, binary.BigEndian.AppendUint32(nil, uint32(*priorities[lastPriority])))
		b = appendText(b, unix.NFTA_HOOK_DEV, e.device)
		end(b, hook)
		b = appendText(b, unix.NFTA_CHAIN_TYPE, "filter")
		batch = append(batch, netlink.Message{Header: netlink.Header{
			Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWCHAIN, Flags: netlink.Request | netlink.Acknowledge}, Data: b})
	}
	if err := f.commit(batch); err != nil {
		slog.Debug("a port has no shortcut to its neighbours", "table", f.name, "err", err)
	}
}

// hookAll makes the chains of interfaces that are there.
func hookAll(conn *nftables.Conn, table *nftables.Table, elements []Element) {
	for _, e := range elements {
		if _, ok := indexOf(e.device); ok {
			conn.AddChain(&nftables.Chain{Name: e.Set, Table: table, Type: nftables.ChainTypeFilter, Device: e.device,
				Hooknum: nftables.ChainHookIngress, Priority: priorities[lastPriority]})
		}
	}
}

// indexOf gives an interface's index in the calling thread's namespace.
func indexOf(name string) (uint32, bool) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, false
	}
	return req.Uint32(), true
}

// sendRules adds the rules of chains that are there. The library has no word for
// the last part of some.
func (f *Firewall) sendRules(table *nftables.Table, chains []Chain) error {
	var batch []netlink.Message
	for _, c := range chains {
		for _, r := range c.Rules {
			body, err := r.message(table, c.Name)
			if err != nil {
				return err
			}
			batch = append(batch, netlink.Message{Header: netlink.Header{
				Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE,
				Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append,
			}, Data: body})
		}
	}
	return f.commit(batch)
}

// message is the rule as NFT_MSG_NEWRULE has it.
func (r Rule) message(table *nftables.Table, chain string) ([]byte, error) {
	b := []byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}
	b = appendText(b, unix.NFTA_RULE_TABLE, table.Name)
	b = appendText(b, unix.NFTA_RULE_CHAIN, chain)
	b, list := begin(b, unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range r.exprs(nil) {
		data, err := expr.Marshal(byte(table.Family), e)
		if err != nil {
			return nil, err
		}
		b = appendAttribute(b, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, data)
	}
	if name := r.verdict.last; name != "" { // its one register is that of the map's value
		const register = 1 // NFTA_FWD_SREG_DEV
		var one, data int
		b, one = begin(b, unix.NFTA_LIST_ELEM)
		b = appendText(b, unix.NFTA_EXPR_NAME, name)
		b, data = begin(b, unix.NFTA_EXPR_DATA)
		b = appendAttribute(b, register, binary.BigEndian.AppendUint32(nil, word(0)))
		end(b, data)
		end(b, one)
	}
	end(b, list)
	return b, nil
}

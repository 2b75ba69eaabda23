package firewall

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
)

// barred makes a table of somebody else, who lets nothing of TCP and UDP pass.
func barred(t testing.TB, name string) (remove func()) {
	t.Helper()
	change := func(f func(*nftables.Conn, *nftables.Table)) {
		t.Helper()
		conn, err := nftables.New()
		must(t, err)
		f(conn, &nftables.Table{Name: name, Family: nftables.TableFamilyINet})
		must(t, conn.Flush())
	}
	change(func(conn *nftables.Conn, table *nftables.Table) {
		conn.AddTable(table)
		c := conn.AddChain(&nftables.Chain{Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
		for _, proto := range []string{"tcp", "udp"} {
			conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: when(drop, transport(proto, protocols[proto])).exprs(nil)})
		}
	})
	return func() { change(func(conn *nftables.Conn, table *nftables.Table) { conn.DelTable(table) }) }
}

// Whether a frame took the shortcut shows in what the rules of others do to it.
func TestNeighboursTakeTheShortcut(t *testing.T) {
	if !asHost(t) {
		return
	}
	mustSet(t, "bridge/bridge-nf-call-iptables", "1")
	mustSet(t, "bridge/bridge-nf-call-ip6tables", "1")
	l := newLab(t)
	one, shut := l.network("one", 1, nil), l.network("shut", 2, func(n *Network) { n.ICC = false })
	a, b := l.container(one, 2), l.container(one, 3)
	c, d := l.container(shut, 2), l.container(shut, 3)
	b.serve(t, 80, "b")
	d.serve(t, 80, "d")
	l.apply()
	defer barred(t, "theirs")()
	targets := map[string]string{"tcp 10.0.1.3:80": "b 10.0.1.2", "udp 10.0.1.3:80": "b 10.0.1.2", "tcp [fd00:1::3]:80": "b fd00:1::2", "udp [fd00:1::3]:80": "b fd00:1::2"}
	for target := range targets {
		proto, address, _ := strings.Cut(target, " ")
		a.expectNothing(t, proto, address)
	}
	if list, err := Onlookers("t"); err != nil || fmt.Sprint(list) != "[the chain forward of the nftables table theirs]" {
		t.Errorf("who looks: %v (%v)", list, err)
	}
	l.options.Shortcut = true
	l.apply()
	for target, answer := range targets {
		proto, address, _ := strings.Cut(target, " ")
		a.expect(t, proto, address, answer)
	}
	c.expectNothing(t, "tcp", "10.0.2.3:80")
	// One that comes later, and one that goes.
	before := l.sandboxes
	e := l.container(one, 4)
	added := Elements(l.options, l.networks, l.sandboxes[len(before)])
	must(t, l.firewall.Change(nil, added))
	e.expect(t, "tcp", "10.0.1.3:80", "b 10.0.1.4")
	must(t, l.firewall.Change(added, nil))
	e.expectNothing(t, "tcp", "10.0.1.3:80")
	l.sandboxes = before
	// A bridge that somebody deletes takes the way from no other.
	gone := l.network("gone", 3, nil)
	must(t, exec.Command("ip", "link", "del", gone.Bridge).Run())
	l.apply()
	a.expect(t, "tcp", "10.0.1.3:80", "b 10.0.1.2")
	l.options.Shortcut = false
	l.apply()
	a.expectNothing(t, "tcp", "10.0.1.3:80")
	if present, err := tableExists("t", Netdev); present || err != nil {
		t.Errorf("the table is there: %v, %v", present, err)
	}
}

// The pieces of a datagram go one way, and are put together where they are
// tracked.
func TestFragmentsReachNeighbours(t *testing.T) {
	if !asHost(t) {
		return
	}
	mustSet(t, "bridge/bridge-nf-call-iptables", "1")
	mustSet(t, "bridge/bridge-nf-call-ip6tables", "1")
	l := newLab(t)
	l.options.Shortcut = true
	one := l.network("one", 1, nil)
	a, b := l.container(one, 2), l.container(one, 3)
	l.apply()
	var in net.PacketConn
	b.do(t, func() (err error) { in, err = net.ListenPacket("udp", ":9"); return err })
	defer in.Close()
	big := bytes.Repeat([]byte("big"), 3000)
	for _, address := range []string{"10.0.1.3:9", "[fd00:1::3]:9"} {
		a.do(t, func() error {
			out, err := net.Dial("udp", address)
			if err != nil {
				return err
			}
			defer out.Close()
			_, err = out.Write(big)
			return err
		})
		got := make([]byte, 1<<16)
		in.SetReadDeadline(time.Now().Add(3 * time.Second))
		if n, _, err := in.ReadFrom(got); err != nil || !bytes.Equal(got[:n], big) {
			t.Errorf("%s: %d bytes arrived: %v", address, n, err)
		}
	}
}

// An empty chain is what iptables leaves behind, and rules that the frames do
// not meet are none of theirs.
func TestWhoLooksAtFrames(t *testing.T) {
	if !asHost(t) {
		return
	}
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("needs nft")
	}
	for _, c := range []struct{ call, ruleset, want string }{
		{"1", "add table ip x", ""},
		{"1", "add table ip x; add chain ip x f { type filter hook forward priority 0; }", ""},
		{"1", "add table ip x; add chain ip x f { type filter hook forward priority 0; policy drop; }", "f"},
		{"1", "add table inet x; add chain inet x f { type filter hook prerouting priority 0; }; add rule inet x f counter", "f"},
		{"0", "add table inet x; add chain inet x f { type filter hook prerouting priority 0; }; add rule inet x f counter", ""},
		{"0", "add table bridge x; add chain bridge x f { type filter hook postrouting priority 0; }; add rule bridge x f counter", "f"},
		{"1", "add table inet x; add chain inet x f { type filter hook input priority 0; policy drop; }", ""},
		{"1", "add table ip tare-other; add chain ip tare-other f { type filter hook forward priority 0; policy drop; }", ""},
	} {
		mustSet(t, "bridge/bridge-nf-call-iptables", c.call)
		mustSet(t, "bridge/bridge-nf-call-ip6tables", c.call)
		if out, err := exec.Command(nft, "flush ruleset; "+c.ruleset).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := ""
		if c.want != "" {
			want = "the chain " + c.want + " of the nftables table x"
		}
		if got, err := Onlookers("tare-t"); err != nil || strings.Join(got, ", ") != want {
			t.Errorf("%s (%s): %q (%v)", c.ruleset, c.call, got, err)
		}
	}
}

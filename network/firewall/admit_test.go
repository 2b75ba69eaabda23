package firewall

import (
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// hostRules makes a firewall as an administrator has it: what is not let in by
// its port is dropped.
func hostRules(t testing.TB, ports ...uint16) {
	t.Helper()
	conn, err := nftables.New()
	must(t, err)
	table := &nftables.Table{Name: "admin", Family: nftables.TableFamilyINet}
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	policy := nftables.ChainPolicyDrop
	chain := conn.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &policy})
	rule := func(matches ...match) {
		var all []expr.Any
		for _, m := range matches {
			all = append(all, m.exprs(nil)...)
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(all, &expr.Verdict{Kind: expr.VerdictAccept})})
	}
	rule(named(iifname, "lo"))
	rule(established)
	rule(transport("ipv6-icmp", unix.IPPROTO_ICMPV6))
	for _, p := range ports {
		rule(dport(p))
	}
	must(t, conn.Flush())
}

func TestHostFirewallDecides(t *testing.T) {
	if !asHost(t) {
		return
	}
	mustSet(t, "ipv4/conf/all/rp_filter", "0")
	l := newLab(t)
	l.options.HostFirewall = true
	must(t, AdmitDevices())
	must(t, AdmitDevices())
	one, two := l.network("one", 1, nil), l.network("two", 2, nil)
	client := l.lan("lan0", 2)
	web := l.container(one, 2, append(publish(8080, 80, 8081, 80, 9000, 9000, 9001, 9001), Port{addr("127.0.0.1"), 8090, 80, "tcp"})...)
	stranger := l.container(two, 4)
	for _, port := range []int{80, 9000, 9001} {
		web.serve(t, port, "web")
	}
	l.apply()
	hostRules(t, 8080, 9001)
	for _, proto := range []string{"tcp", "udp"} {
		client.expect(t, proto, "192.0.2.1:8080", "web 192.0.2.2")
		client.expect(t, proto, "[2001:db8:2::1]:8080", "web 2001:db8:2::2")
		client.expect(t, proto, "192.0.2.1:9001", "web 192.0.2.2")
		client.expect(t, proto, "[2001:db8:2::1]:9001", "web 2001:db8:2::2")
		client.expectNothing(t, proto, "192.0.2.1:8081")
		client.expectNothing(t, proto, "[2001:db8:2::1]:8081")
		client.expectNothing(t, proto, "192.0.2.1:9000")
		stranger.expectNothing(t, proto, "192.0.2.1:8081")
		machine{}.expect(t, proto, "127.0.0.1:8081", "web 10.0.1.1")
		machine{}.expect(t, proto, "192.0.2.1:8081", "web 192.0.2.1")
	}
	machine{}.expect(t, "tcp", "127.0.0.1:8090", "web 10.0.1.1")
	hostRules(t, 8081)
	client.expect(t, "tcp", "192.0.2.1:8081", "web 192.0.2.2")
	client.expectNothing(t, "tcp", "192.0.2.1:8080")

	// Docker's way does not ask.
	l.options.HostFirewall = false
	l.apply()
	client.expect(t, "tcp", "192.0.2.1:8080", "web 192.0.2.2")

	mustSet(t, "ipv4/conf/all/rp_filter", "1")
	if err := AdmitDevices(); err == nil {
		t.Error("a strict host is accepted")
	}
}

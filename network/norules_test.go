package network

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/tarehq/tare/fault"
)

// tables are the names of all that the host has rules in.
func tables(t *testing.T) (names []string) {
	t.Helper()
	conn, err := nftables.New()
	must(t, err)
	list, err := conn.ListTables()
	must(t, err)
	for _, table := range list {
		if !strings.HasPrefix(table.Name, "tared-holds-") { // empty, and tells other daemons whose the bridge is
			names = append(names, table.Name)
		}
	}
	return names
}

// A daemon that is told to make no rules takes those away that one before it made,
// and leaves the host's forwarding alone if it is told so, too.
func TestNoRules(t *testing.T) {
	if !asHost(t) {
		return
	}
	server := machine(t, "lan0", 1)
	server.route(t, "172.30.1.0/24", "10.99.1.1")
	server.serve(t, "tcp", 80, "outside")
	must(t, writeSysctl("ipv4/ip_forward", "0"))

	c := testConfig("tt0", 1)
	before := open(t, c)
	must(t, before.Close(t.Context()))
	if len(tables(t)) == 0 {
		t.Fatal("a daemon makes no rules")
	}
	must(t, writeSysctl("ipv4/ip_forward", "0"))
	conn, err := nftables.New()
	must(t, err)
	conn.DelTable(&nftables.Table{Name: "tare-forward", Family: nftables.TableFamilyIPv4}) // which stays until the next boot
	must(t, conn.Flush())

	c.NoRules, c.NoRules6, c.NoForwarding = true, true, true
	s := open(t, c)
	web := attach(t, s, "web", Port{HostPort: 8080, ContainerPort: 80})
	web.serve(t, "tcp", 80, "web")
	if names := tables(t); len(names) != 0 {
		t.Errorf("the host has the tables %q", names)
	}
	if on, _ := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); strings.TrimSpace(string(on)) != "0" {
		t.Errorf("forwarding is %s", on)
	}
	place{}.expect(t, "tcp", "172.30.1.2:80", "web 172.30.1.1")
	if relays := web.Sandbox.Relays(); len(relays) == 0 || relays[0].Host != addr("0.0.0.0") || relays[0].To.String() != "172.30.1.2:80" {
		t.Errorf("relayed are %v", relays)
	}
	if _, err := s.Exposure(); !errors.Is(err, fault.Unavailable) {
		t.Errorf("who reaches what: %v", err)
	}
	must(t, s.Close(t.Context()))
	c.NoRules6 = false
	s = open(t, c)
	if _, err := s.Exposure(); err == nil || !strings.Contains(err.Error(), "no rules of IPv4 (--iptables=false):") {
		t.Errorf("who reaches what: %v", err)
	}
	must(t, s.Close(t.Context()))

	c.NoRules6, c.NoForwarding = true, false
	s = open(t, c)
	attach(t, s, "c").expect(t, "tcp", "10.99.1.2:80", "outside 172.30.1.2")
	if names := tables(t); len(names) != 0 {
		t.Errorf("the host has the tables %q", names)
	}
}

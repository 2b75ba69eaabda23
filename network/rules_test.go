package network

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/tarehq/tare/internal/testutil"
)

func TestExposureTellsWhoReachesWhat(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	web := attach(t, s, "web", append(hostPorts(8000, 8003, 0), Port{HostIP: addr("127.0.0.1"), HostPort: 5432, ContainerPort: 5432}, Port{HostPort: 8080, ContainerPort: 80})...)
	var lines []string
	exposures, err := s.Exposure()
	must(t, err)
	for _, e := range exposures {
		lines = append(lines, fmt.Sprintf("%s|%s|%s|%s|%s", e.Container, e.At, e.Target, e.From, e.Rule))
		if e.Rule != "relay in the container's supervising process" && !strings.Contains(s.Rules(), e.Rule[strings.Index(e.Rule, "{ ")+2:len(e.Rule)-2]) {
			t.Errorf("the rule %s is none of those that are wanted", e.Rule)
		}
	}
	got := strings.Join(lines, "\n")
	for _, want := range []string{
		"web|0.0.0.0:8000-8003|tcp 172.30.1.2:8000-8003|everyone who reaches the host|ip publish @ranges { tcp . 8000-8003 : 172.30.1.2 }",
		"web|0.0.0.0:8080|tcp 172.30.1.2:80|everyone who reaches the host|ip publish @ports { tcp . 8080 : 172.30.1.2 . 80 }",
		"web|127.0.0.1:5432|tcp 172.30.1.2:5432|this host|ip publish @address_ports { 127.0.0.1 . tcp . 5432 : 172.30.1.2 . 5432 }",
		"web|[::]:8080|tcp 172.30.1.2:80|everyone who reaches the host|relay in the container's supervising process",
		`web|172.30.1.2|172.30.1.2|containers on bridge|ip forward @within { "tt0" . "tt0" }`,
		`web|172.30.1.2|tcp and udp 172.30.1.2|containers on bridge|netdev neighbours-tt0 @way4-tt0 { ` + web.Endpoints[0].MAC + ` . 172.30.1.2 : "` + web.Endpoints[0].HostInterface + `" }`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

// One of the tables may go alone.
func TestEachTableComesBack(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	attach(t, s, "c", Port{HostPort: 8080, ContainerPort: 80}).serve(t, "tcp", 80, "c")
	for _, family := range []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyIPv4, nftables.TableFamilyNetdev} {
		conn, err := nftables.New()
		must(t, err)
		conn.DelTable(&nftables.Table{Name: s.cfg.Name, Family: family})
		must(t, conn.Flush())
		testutil.Eventually(t, 5*time.Second, "the table is back", func() bool {
			whole, err := s.rules.firewall.Whole()
			must(t, err)
			return whole
		})
	}
	place{}.expect(t, "tcp", "127.0.0.1:8080", "c 172.30.1.1")
}

func TestPortsOfBothFamiliesAreTheSame(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	a := attach(t, s, "a", Port{ContainerPort: 80}, Port{ContainerPort: 81, HostPort: 9000, HostPortEnd: 9005}, Port{ContainerPort: 82, HostIP: addr("::1"), HostPort: 7000})
	var text []string
	for _, p := range a.Ports {
		text = append(text, fmt.Sprint(p.HostIP, p.ContainerPort))
	}
	if got := strings.Join(text, " "); got != "0.0.0.080 ::80 0.0.0.081 ::81 ::182" && got != "0.0.0.0 80 :: 80 0.0.0.0 81 :: 81 ::1 82" {
		t.Errorf("published %s", got)
	}
	if a.Ports[0].HostPort != a.Ports[1].HostPort || a.Ports[0].HostPort == 0 || len(a.Sockets) != 5 {
		t.Errorf("published %v with %d sockets", a.Ports, len(a.Sockets))
	}
	// A port that is taken in one family is taken.
	b := attach(t, s, "b", Port{ContainerPort: 80, HostIP: addr("::"), HostPort: 9001}, Port{ContainerPort: 81, HostPort: 9001, HostPortEnd: 9002})
	if b.Ports[1].HostPort != 9002 || b.Ports[2].HostPort != 9002 {
		t.Errorf("published %v", b.Ports)
	}
	_, err := s.Attach(t.Context(), Request{ContainerID: "x", Name: "x", Wants: []Want{{}}, Ports: []Port{{HostPort: 9001, ContainerPort: 80}}})
	if err == nil || !strings.HasSuffix(err.Error(), "Bind for :::9001 failed: port is already allocated") {
		t.Errorf("error %v", err)
	}
	if relays := fmt.Sprint(a.Relays()); relays != fmt.Sprintf("[{tcp :: %d %d %s:80 false} {tcp :: 9000 9000 %s:81 false} {tcp ::1 7000 7000 %s:82 false}]",
		a.Ports[0].HostPort, a.Ports[0].HostPort, a.Endpoints[0].Address.Addr(), a.Endpoints[0].Address.Addr(), a.Endpoints[0].Address.Addr()) {
		t.Errorf("relays %s", relays)
	}
}

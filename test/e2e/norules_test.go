package e2e

import (
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestNoRules: without rules the supervising process relays what is published, and
// goes on when the daemon is gone.
func TestNoRules(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t, "--iptables=false", "--ip6tables=false")
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "web", "-p", "127.0.0.1:18091:80", "-p", "18092:80", "busybox", "httpd", "-f", "-h", "/etc")
	if out, err := exec.Command("nft", "list", "tables").CombinedOutput(); err != nil || strings.Contains(strings.ReplaceAll(string(out), "tared-holds-"+d.Bridge, ""), d.Bridge) {
		t.Errorf("%v: the host's tables are\n%s", err, out)
	}
	for _, address := range []string{"127.0.0.1:18091", "127.0.0.1:18092", "[::1]:18092", d.Tare(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge") + ":18092"} {
		testutil.Eventually(t, 10*time.Second, address+" answers", answers(address))
	}
	if answers(d.Tare(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge") + ":18091")() {
		t.Error("what is published on the loopback address is reached at another")
	}
	if out := d.Tare(t, "info", "--format", "{{.FirewallBackend.Driver}}"); out != "none" {
		t.Errorf("info says %s", out)
	}
	d.Signal(t, 9)
	if !answers("127.0.0.1:18092")() {
		t.Error("the port is lost with the daemon")
	}
	d.Up(t)
	d.Tare(t, "restart", "-t", "0", "web")
	testutil.Eventually(t, 10*time.Second, "it answers after a restart", answers("127.0.0.1:18092"))
}

// TestRulesComeAndGo: a daemon that makes no rules serves the ports of containers that
// began under one that did, and the other way round.
func TestRulesComeAndGo(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "network", "create", "--ipv6", "--subnet", "fd00:7a12:5::/64", "both")
	d.Tare(t, "run", "-d", "--name", "four", "-p", "18093:80", "busybox", "httpd", "-f", "-h", "/etc")
	d.Tare(t, "run", "-d", "--name", "six", "--network", "both", "-p", "18094:80", "busybox", "httpd", "-f", "-h", "/etc")
	gateway := d.Tare(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
	check := func(when string) {
		t.Helper()
		for _, port := range []string{"18093", "18094"} {
			for _, address := range []string{"127.0.0.1", gateway, "[::1]", "[fd00:7a12:5::1]"} {
				testutil.Eventually(t, 10*time.Second, address+":"+port+" answers "+when, answers(address+":"+port))
			}
		}
	}
	check("by rules")
	for _, flags := range [][]string{{"--iptables=false", "--ip6tables=false"}, {"--iptables=true", "--ip6tables=true"}, {"--iptables=false"}} {
		d.Signal(t, 15)
		d.Add(flags...)
		d.Up(t)
		check("with " + strings.Join(flags, " "))
	}
}

// answers tells whether the container's server does at an address of the host's.
func answers(address string) func() bool {
	return func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, "GET /passwd HTTP/1.0\r\n\r\n")
		text, _ := io.ReadAll(c)
		return strings.Contains(string(text), "root")
	}
}

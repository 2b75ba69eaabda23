package e2e

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestNoDefaultBridge: containers that ask for no network have none, those that do
// are on it as ever, and ports are published as soon as there is a way.
func TestNoDefaultBridge(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t, "--bridge", "none")
	d.Drop("--bip")
	d.Up(t)
	d.ImportBusybox(t)
	refused := func(want string, args ...string) {
		t.Helper()
		if _, err := d.Try(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", strings.Join(args, " "), err)
		}
	}
	if out := d.Tare(t, "network", "ls", "--format", "{{.Name}}"); out != "host\nnone" {
		t.Errorf("networks: %q", out)
	}
	refused("operation is not permitted on predefined bridge network", "network", "create", "bridge")
	refused("unable to derive the IP value for host-gateway", "run", "--rm", "--add-host", "a:host-gateway", "busybox", "true")
	if out := d.Tare(t, "run", "--rm", "busybox", "ls", "/sys/class/net"); out != "lo" {
		t.Errorf("interfaces of a container that asks for no network: %s", out)
	}
	d.Tare(t, "run", "-d", "--name", "web", "-p", "127.0.0.1:18090:80", "busybox", "httpd", "-f", "-h", "/etc")
	if out := d.Tare(t, "inspect", "--format", "{{.HostConfig.NetworkMode}} {{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}}{{end}} {{.NetworkSettings.Ports}}", "web"); out != "bridge bridge= map[]" {
		t.Errorf("the container shows %s", out)
	}
	answers := func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:18090", time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if answers() {
		t.Error("a container without a network is reached")
	}
	refused("network bridge not found", "network", "connect", "bridge", "web")
	d.Tare(t, "network", "create", "mine")
	d.Tare(t, "network", "connect", "mine", "web")
	testutil.Eventually(t, 10*time.Second, "the port of a container that is connected answers", answers)
	if out := d.Tare(t, "run", "--rm", "--network", "mine", "busybox", "nslookup", "-type=a", "web"); !strings.Contains(out, "Name:") {
		t.Error(out)
	}
	// The next daemon finds all as it is.
	d.Signal(t, 9)
	d.Up(t)
	if !answers() {
		t.Error("the port is lost with the daemon")
	}
	d.Tare(t, "network", "disconnect", "mine", "web")
	l, err := net.Listen("tcp", "127.0.0.1:18090")
	if err != nil {
		t.Fatalf("the port of a container without a way out is taken: %v", err)
	}
	l.Close()
	d.Tare(t, "network", "connect", "mine", "web")
	testutil.Eventually(t, 10*time.Second, "it answers again", answers)
	d.Tare(t, "rm", "-f", "web")
	d.Tare(t, "network", "rm", "mine")
}

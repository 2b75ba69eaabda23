package e2e

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/network/remote/remotetest"
	"github.com/tarehq/tare/test/daemon"
)

// serve has a plugin listen where the daemon looks for it.
func serve(t *testing.T, d *daemon.Daemon, h http.Handler) *http.Server {
	t.Helper()
	dir := filepath.Join(d.Dir, "plugins")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "small.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return s
}

// TestNetworkPlugin has a plugin's interface pairs in containers, with addresses of
// the plugin, over a crash of the daemon and a restart of the plugin.
func TestNetworkPlugin(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	p := remotetest.New()
	server := serve(t, d, p)
	d.Up(t)
	d.ImportBusybox(t)
	d.Tare(t, "network", "create", "-d", "small", "--ipam-driver", "small", "-o", "color=red", "mine")
	d.Tare(t, "run", "-d", "--name", "web", "--network", "mine", "-p", "8080:80", "busybox", "sleep", "1000")
	if got := d.Tare(t, "inspect", "--format", "{{.NetworkSettings.Networks.mine.IPAddress}} {{.NetworkSettings.Networks.mine.Gateway}}", "web"); got != "10.66.0.2 10.66.0.1" {
		t.Errorf("addresses %s", got)
	}
	if body := p.Body("NetworkDriver.ProgramExternalConnectivity"); !strings.Contains(body, `"HostPort":8080`) {
		t.Errorf("the port was told as %s", body)
	}
	d.Tare(t, "exec", "web", "ping", "-c", "1", "-W", "5", "10.66.0.1")
	d.Tare(t, "run", "--rm", "--network", "mine", "busybox", "sh", "-c", "nslookup -type=a web | grep 10.66.0.2 && ping -c 1 -W 5 10.66.0.1")
	d.Signal(t, syscall.SIGKILL)
	server.Close()
	server = serve(t, d, p)
	d.Up(t)
	d.Tare(t, "exec", "web", "ping", "-c", "1", "-W", "5", "10.66.0.1")
	d.Tare(t, "run", "-d", "--name", "later", "busybox", "sleep", "1000")
	d.Tare(t, "network", "connect", "mine", "later")
	d.Tare(t, "exec", "later", "ping", "-c", "1", "-W", "5", "10.66.0.1")
	d.Tare(t, "network", "disconnect", "mine", "later")
	if _, err := d.Try("network", "create", "-d", "absent", "other"); err == nil || !strings.Contains(err.Error(), `plugin "absent" not found`) {
		t.Errorf("a driver that is not there: %v", err)
	}
	d.Tare(t, "rm", "-f", "web", "later")
	d.Tare(t, "network", "rm", "mine")
	if left := p.Left(); left != "" {
		t.Errorf("the plugin has %s left of %q", left, p.Calls())
	}

	// One that hangs hurts only those who need it.
	server.Close()
	d.Tare(t, "run", "-d", "--name", "plain", "busybox", "sleep", "1000")
	hold := make(chan struct{})
	defer close(hold)
	serve(t, d, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}))
	asked := make(chan error, 1)
	go func() {
		_, err := d.Try("network", "create", "-d", "small", "stuck")
		asked <- err
	}()
	d.Tare(t, "network", "ls")
	d.Tare(t, "ps")
	d.Tare(t, "network", "create", "another")
	d.Tare(t, "network", "rm", "another")
	select {
	case err := <-asked:
		t.Errorf("a network of a plugin that hangs: %v", err)
	default:
	}
	d.Tare(t, "rm", "-f", "plain")
	d.Signal(t, syscall.SIGKILL)
	<-asked
	d.Up(t)
}

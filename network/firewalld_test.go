package network

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/network/firewalld"
)

// firewalldProgram is firewalld as its own program runs it, with a configuration of
// the test's; Debian's package of the library has neither.
const firewalldProgram = `
import sys
from firewall import config
config.set_default_config_paths(sys.argv[1])
config.set_system_config_paths(sys.argv[2])
from firewall.server import server
server.run_server(False)
`

// firewalldHost is a bus with firewalld on it, which refuses what no zone lets in.
type firewalldHost struct {
	t       *testing.T
	dir     string
	program *exec.Cmd
}

func newFirewalldHost(t *testing.T) *firewalldHost {
	t.Helper()
	if exec.Command("/usr/bin/python3", "-c", "import firewall, dbus, nftables, gi").Run() != nil {
		t.Skip("needs firewalld's library (Debian's python3-firewall)")
	}
	h := &firewalldHost{t: t, dir: t.TempDir()}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+h.dir+"/bus")
	for _, kind := range []string{"zones", "services", "icmptypes", "ipsets", "helpers", "policies"} {
		must(t, os.MkdirAll(h.dir+"/default/"+kind, 0o755))
		must(t, os.MkdirAll(h.dir+"/system/"+kind, 0o755))
	}
	for zone, target := range map[string]string{"public": "default", "block": "%%REJECT%%", "drop": "DROP", "trusted": "ACCEPT"} {
		must(t, os.WriteFile(h.dir+"/default/zones/"+zone+".xml", fmt.Appendf(nil, `<?xml version="1.0" encoding="utf-8"?><zone target=%q><short>%s</short></zone>`, target, zone), 0o644))
	}
	must(t, os.WriteFile(h.dir+"/program", []byte(firewalldProgram), 0o644))
	must(t, os.WriteFile(h.dir+"/conf", []byte(`<busconfig><type>system</type><listen>unix:path=`+h.dir+`/bus</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o644))
	bus := exec.Command("dbus-daemon", "--nofork", "--print-address", "--config-file", h.dir+"/conf")
	out, err := bus.StdoutPipe()
	must(t, err)
	must(t, bus.Start())
	t.Cleanup(func() { _ = bus.Process.Kill(); _ = bus.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // it listens
		t.Fatal(err)
	}
	t.Cleanup(h.stop)
	return h
}

func (h *firewalldHost) start() {
	h.t.Helper()
	h.program = exec.Command("/usr/bin/python3", h.dir+"/program", h.dir+"/default", h.dir+"/system")
	must(h.t, h.program.Start())
	testutil.Eventually(h.t, 20*time.Second, "firewalld is there", firewalld.Running)
	h.ask("getDefaultZone") // answered when it has begun
}

func (h *firewalldHost) stop() {
	if h.program != nil {
		_ = h.program.Process.Kill()
		_ = h.program.Wait()
		h.program = nil
	}
}

// ask calls a method of firewalld's, and gives its answer as dbus-send prints it.
func (h *firewalldHost) ask(method string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command("dbus-send", append([]string{"--bus=unix:path=" + h.dir + "/bus", "--print-reply", "--reply-timeout=20000", "--dest=org.fedoraproject.FirewallD1",
		"/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1." + method}, args...)...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", method, err, out)
	}
	return string(out)
}

// knows waits until the bridges that firewalld lets all through are these.
func (h *firewalldHost) knows(bridges ...string) {
	h.t.Helper()
	testutil.Eventually(h.t, 20*time.Second, fmt.Sprintf("firewalld knows the bridges %s", bridges), func() bool {
		out := h.ask("zone.getInterfaces", "string:docker")
		for _, b := range bridges {
			if !strings.Contains(out, `"`+b+`"`) {
				return false
			}
		}
		return strings.Count(out, `"`) == 2*len(bridges)
	})
}

// TestFirewalld: containers are reached and reach others beside a firewalld that
// runs before the daemon, is reloaded, or comes later.
func TestFirewalld(t *testing.T) {
	if !asHost(t) {
		return
	}
	h := newFirewalldHost(t)
	h.start()
	client := machine(t, "lan0", 1)
	s := open(t, stored(t))
	n := create(t, s, wire.CreateRequest{Name: "n", IPAM: askedFor("10.1.0.0/24")})
	h.knows("tt0", n.Bridge)
	web := attachTo(t, s, "web", Want{Network: "n"})
	published, err := s.Attach(t.Context(), Request{ContainerID: "published", Name: "published", Wants: []Want{{Network: "n"}}, Ports: []Port{{HostPort: 8080, ContainerPort: 80}}})
	must(t, err)
	t.Cleanup(func() { letGo(published) })
	attached{published, place{published.NetNS}}.serve(t, "tcp", 80, "web")
	client.serve(t, "tcp", 81, "outside")
	passes := func() {
		t.Helper()
		client.expect(t, "tcp", "10.99.1.1:8080", "web 10.99.1.2")
		web.expect(t, "tcp", "10.99.1.2:81", "outside 10.99.1.1")
	}
	passes()
	h.ask("reload")
	h.knows("tt0", n.Bridge)
	passes()
	h.stop()
	h.start() // from what it has stored, in which there is no interface
	h.knows("tt0", n.Bridge)
	passes()
	must(t, s.Detach(t.Context(), published.Sandbox))
	must(t, s.Detach(t.Context(), web.Sandbox))
	must(t, s.Remove(t.Context(), "n"))
	h.knows("tt0")
}

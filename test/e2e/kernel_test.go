package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// hasKind tells whether the kernel can make interfaces or queues like this; what it
// makes is removed.
func hasKind(t *testing.T, make, remove string) bool {
	t.Helper()
	if out, err := exec.Command("sh", "-c", make).CombinedOutput(); err != nil {
		t.Logf("%s: %s", make, out)
		return false
	}
	if out, err := exec.Command("sh", "-c", remove).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", remove, err, out)
	}
	return true
}

// uplink makes an interface of the host with another machine on its link.
func uplink(t *testing.T, name, address string) {
	t.Helper()
	script := fmt.Sprintf("ip netns add %[1]s && ip link add %[1]s type veth peer name eth0 netns %[1]s && ip link set %[1]s up && ip -n %[1]s link set eth0 up && ip -n %[1]s addr add %[2]s dev eth0", name, address)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestIPvlanNetworks: containers share the parent's MAC address, on the link (l2) or
// behind the host's routes alone (l3, l3s).
func TestIPvlanNetworks(t *testing.T) {
	testutil.RequireRoot(t)
	if !hasKind(t, "ip link add ivparent type dummy && ip link add ivtest link ivparent type ipvlan", "ip link del ivparent") {
		t.Skip("the kernel has no ipvlan")
	}
	d := daemon.Start(t)
	d.ImportBusybox(t)
	uplink(t, "ivup0", "10.78.0.1/24")
	uplink(t, "ivup1", "10.79.9.1/24")
	refused := func(want string, args ...string) {
		t.Helper()
		if _, err := d.Try(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", strings.Join(args, " "), err)
		}
	}
	d.Tare(t, "network", "create", "-d", "ipvlan", "--subnet", "10.78.0.0/24", "-o", "parent=ivup0", "two")
	d.Tare(t, "run", "-d", "--name", "near", "--network", "two", "--ip", "10.78.0.5", "busybox", "sleep", "1000")
	d.Tare(t, "exec", "near", "ping", "-c", "1", "-W", "20", "10.78.0.1")
	d.Tare(t, "run", "--rm", "--network", "two", "busybox", "ping", "-c", "1", "-W", "20", "near")
	if parent, err := net.InterfaceByName("ivup0"); err != nil {
		t.Error(err)
	} else if mac := d.Tare(t, "exec", "near", "cat", "/sys/class/net/eth0/address"); mac != parent.HardwareAddr.String() {
		t.Errorf("the container has the MAC address %s, the parent %s", mac, parent.HardwareAddr)
	}
	if out := d.Tare(t, "exec", "near", "ip", "route"); !strings.Contains(out, "default via 10.78.0.1 dev eth0") {
		t.Errorf("on the link: %s", out)
	}
	refused("ipvlan interfaces do not support custom mac address", "run", "--rm", "--network", "two", "--mac-address", "02:00:00:00:00:09", "busybox", "true")
	refused("requested ipvlan mode 'l4' is not valid", "network", "create", "-d", "ipvlan", "-o", "ipvlan_mode=l4", "no")
	refused("requested ipvlan flag 'x' is not valid", "network", "create", "-d", "ipvlan", "-o", "ipvlan_flag=x", "no")

	// The machine on the link knows the way to the containers' subnets by the host's address there.
	if out, err := exec.Command("ip", "addr", "add", "10.79.9.2/24", "dev", "ivup1").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	for i, mode := range []string{"l3", "l3s"} {
		subnet := fmt.Sprintf("10.79.%d", i)
		d.Tare(t, "network", "create", "-d", "ipvlan", "--subnet", subnet+".0/24", "-o", "parent=ivup1", "-o", "ipvlan_mode="+mode, mode)
		d.Tare(t, "run", "-d", "--name", "far"+mode, "--network", mode, "--ip", subnet+".5", "busybox", "sleep", "1000")
		if out := d.Tare(t, "exec", "far"+mode, "ip", "route"); !strings.Contains(out, "default dev eth0") {
			t.Errorf("in mode %s: %s", mode, out)
		}
		d.Tare(t, "run", "--rm", "--network", mode, "busybox", "ping", "-c", "1", "-W", "20", "far"+mode)
		if out, err := exec.Command("ip", "-n", "ivup1", "route", "add", subnet+".0/24", "via", "10.79.9.2").CombinedOutput(); err != nil {
			t.Fatalf("%s", out)
		}
		d.Tare(t, "exec", "far"+mode, "ping", "-c", "1", "-W", "20", "10.79.9.1")
		d.Tare(t, "rm", "-f", "far"+mode)
		d.Tare(t, "network", "rm", mode)
	}

	// Without a parent, and internal on one, there is no way out.
	d.Tare(t, "network", "create", "-d", "ipvlan", "--subnet", "10.80.0.0/24", "alone")
	d.Tare(t, "network", "create", "-d", "ipvlan", "--internal", "--subnet", "10.81.0.0/24", "-o", "parent=ivup0", "inner")
	for _, network := range []string{"alone", "inner"} {
		d.Tare(t, "run", "-d", "--name", "in"+network, "--network", network, "busybox", "sleep", "1000")
		if out := d.Tare(t, "exec", "in"+network, "ip", "route"); strings.Contains(out, "default") {
			t.Errorf("%s: %s", network, out)
		}
		d.Tare(t, "run", "--rm", "--network", network, "busybox", "ping", "-c", "1", "-W", "20", "in"+network)
	}
	// The next daemon finds them as they are.
	d.Signal(t, unix.SIGKILL)
	d.Up(t)
	d.Tare(t, "exec", "near", "ping", "-c", "1", "-W", "20", "10.78.0.1")
	d.Tare(t, "run", "--rm", "--network", "two", "busybox", "ping", "-c", "1", "-W", "20", "near")
	d.Tare(t, "rm", "-f", "near", "inalone", "ininner")
	d.Tare(t, "network", "rm", "two", "alone", "inner")
	if out, _ := exec.Command("ip", "-o", "link").Output(); bytes.Contains(out, []byte("dm-")) {
		t.Errorf("left: %s", out)
	}
}

// TestDelayAndLoss: what a container sends is late, or lost, as was said, from the
// start on and after an update.
func TestDelayAndLoss(t *testing.T) {
	testutil.RequireRoot(t)
	if !hasKind(t, "ip link add netest type dummy && tc qdisc add dev netest root netem delay 1ms || { ip link del netest; false; }", "ip link del netest") {
		t.Skip("the kernel has no netem")
	}
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "slow", "--net-delay", "300ms", "busybox", "sleep", "1000")
	gateway := d.Tare(t, "inspect", "--format", "{{.NetworkSettings.Networks.bridge.Gateway}}", "slow")
	took := func() float64 {
		t.Helper()
		out := d.Tare(t, "exec", "slow", "ping", "-c", "1", "-W", "20", gateway)
		m := regexp.MustCompile(`time=([0-9.]+) ms`).FindStringSubmatch(out)
		if m == nil {
			t.Fatal(out)
		}
		ms, _ := strconv.ParseFloat(m[1], 64)
		return ms
	}
	if ms := took(); ms < 300 {
		t.Errorf("a packet that is 300 ms late was back after %v ms", ms)
	}
	d.Tare(t, "update", "--net-delay", "1s", "slow")
	if ms := took(); ms < 1000 {
		t.Errorf("a packet that is 1 s late was back after %v ms", ms)
	}
	d.Tare(t, "update", "--net-delay", "0", "--net-loss", "100%", "slow")
	if out, err := d.Try("exec", "slow", "ping", "-c", "2", "-W", "1", gateway); err == nil {
		t.Errorf("with all lost: %s", out)
	}
	d.Tare(t, "update", "--net-loss", "0", "slow")
	took()
	d.Tare(t, "rm", "-f", "slow")
}

// TestPublishedSCTP: an SCTP port keeps its client's address, is nobody else's, and
// goes on without the daemon.
func TestPublishedSCTP(t *testing.T) {
	testutil.RequireRoot(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		t.Skip("the kernel has no SCTP")
	}
	unix.Close(fd)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	uplink(t, "scup0", "10.82.0.2/24")
	if out, err := exec.Command("ip", "addr", "add", "10.82.0.1/24", "dev", "scup0").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	d.Tare(t, "run", "-d", "--name", "web", "-p", "18132:132/sctp", "busybox", "sleep", "1000")
	if out := d.Tare(t, "port", "web"); !strings.Contains(out, "132/sctp -> 0.0.0.0:18132") {
		t.Error(out)
	}
	if _, err := d.Try("run", "--rm", "-p", "18132:80/sctp", "busybox", "true"); err == nil || !strings.Contains(err.Error(), "port is already allocated") {
		t.Errorf("a second one of the port: %v", err)
	}
	serveSCTP(t, d.Tare(t, "inspect", "--format", "{{.State.Pid}}", "web"))
	asks := func() string {
		lan, err := os.Open("/run/netns/scup0")
		if err != nil {
			t.Fatal(err)
		}
		defer lan.Close()
		var answer string
		err = testutil.TryInNetNS(lan, func() (err error) { answer, err = askSCTP([4]byte{10, 82, 0, 1}, 18132); return err })
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if got := asks(); got != "10.82.0.2" {
		t.Errorf("the container sees %q for the client 10.82.0.2", got)
	}
	d.Signal(t, unix.SIGKILL)
	if got := asks(); got != "10.82.0.2" {
		t.Errorf("without the daemon the container sees %q", got)
	}
	d.Up(t)
	d.Tare(t, "rm", "-f", "web")
}

// serveSCTP tells, in the network namespace of a process, each client its address.
func serveSCTP(t *testing.T, pid string) {
	t.Helper()
	ns, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var fd int
	err = testutil.TryInNetNS(ns, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err != nil {
			return err
		}
		if err = unix.Bind(fd, &unix.SockaddrInet4{Port: 132}); err != nil {
			return err
		}
		return unix.Listen(fd, 10)
	})
	if err != nil {
		t.Fatal(err)
	}
	// A socket of SCTP that listens is woken by no shutdown.
	tv := unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, from, err := unix.Accept(fd)
			if err != nil { // nobody came
				continue
			}
			if a, ok := from.(*unix.SockaddrInet4); ok {
				_, _ = unix.Write(c, fmt.Appendf(nil, "%d.%d.%d.%d", a.Addr[0], a.Addr[1], a.Addr[2], a.Addr[3]))
			}
			unix.Close(c)
		}
	}()
	t.Cleanup(func() { close(stop); <-done; unix.Close(fd) })
}

// askSCTP connects and gives what it is told.
func askSCTP(to [4]byte, port int) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(testutil.Patience(10 * time.Second).Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to, Port: port}); err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	buf := make([]byte, 64)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return "", fmt.Errorf("read: %w", err)
	}
	return string(buf[:n]), nil
}

package daemon

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

// asMachine runs the test in a network namespace that stands for the machine,
// and tells whether this is that process.
func asMachine(t *testing.T) bool {
	t.Helper()
	testutil.RequireRoot(t)
	const variable = "TARE_TEST_MACHINE"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// elsewhere is a process with a network namespace of its own.
func elsewhere(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	end, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { end.Close(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

// within calls f in the network namespace of a process.
func within(t *testing.T, pid int, f func() error) error {
	t.Helper()
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		result <- errors.Join(unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET), f())
	}()
	return <-result
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func rules(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").Output()
	must(t, err)
	return string(out)
}

func forwarding(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	must(t, err)
	return strings.TrimSpace(string(text))
}

func setForwarding(t *testing.T, value string) {
	t.Helper()
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(value), 0o644))
}

// world is a machine beside this one that answers at 10.99.0.2:80, and gives a
// function that tells whether a process reaches it.
func world(t *testing.T) (reaches func(pid int) bool) {
	t.Helper()
	pid := elsewhere(t)
	in := "nsenter -t " + strconv.Itoa(pid) + " --net "
	must(t, inOrder("ip link set lo up", "ip link add lan type veth peer name eth0 netns "+strconv.Itoa(pid),
		"ip addr add 10.99.0.1/24 dev lan", "ip link set lan up", in+"ip addr add 10.99.0.2/24 dev eth0", in+"ip link set eth0 up"))
	must(t, within(t, pid, func() error {
		l, err := net.Listen("tcp4", "10.99.0.2:80")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	return func(from int) bool {
		return within(t, from, func() error {
			c, err := net.DialTimeout("tcp4", "10.99.0.2:80", 500*time.Millisecond)
			if err == nil {
				c.Close()
			}
			return err
		}) == nil
	}
}

// The rules of machines on which tests are run.
var machines = map[string][]string{
	"nothing": nil,
	"iptables": {
		"nft add table ip filter",
		"nft add chain ip filter FORWARD { type filter hook forward priority filter ; policy drop ; }",
	},
	"a tared that turned forwarding on": {"scripts/forward join lan-of-another", "ip link add lan-of-another type veth peer name other"},
}

func TestUplinks(t *testing.T) {
	if !asMachine(t) {
		return
	}
	t.Chdir(Root())
	reaches := world(t)
	for name, commands := range machines {
		for _, before := range []string{"0", "1"} {
			setForwarding(t, before)
			must(t, inOrder(commands...))
			found, rulesFound := forwarding(t), rules(t)
			one, two := uplink{elsewhere(t)}, uplink{elsewhere(t)}
			must(t, locked(one.up))
			must(t, locked(two.up))
			if !reaches(one.pid) || !reaches(two.pid) {
				t.Errorf("%s, forwarding %s: the world is not reached\n%s", name, before, rules(t))
			}
			must(t, locked(one.down))
			if reaches(one.pid) || !reaches(two.pid) {
				t.Errorf("%s, forwarding %s: the end of one is not that of one\n%s", name, before, rules(t))
			}
			must(t, locked(two.down))
			if now := rules(t); forwarding(t) != found || now != rulesFound {
				t.Errorf("%s: forwarding is %s and was %s, the rules are\n%s\nand were\n%s", name, forwarding(t), found, now, rulesFound)
			}
			must(t, inOrder("nft flush ruleset"))
			_ = inOrder("ip link delete lan-of-another")
		}
	}
}

// What a killed process left goes with the next uplink.
func TestSweptUplinks(t *testing.T) {
	if !asMachine(t) {
		return
	}
	setForwarding(t, "0")
	must(t, inOrder(machines["iptables"]...))
	found := rules(t)
	killed := uplink{elsewhere(t)}
	must(t, locked(killed.up))
	must(t, inOrder("ip link delete "+killed.host()))
	must(t, locked(func() error { sweepUplinks(); return nil }))
	if now := rules(t); forwarding(t) != "0" || now != found {
		t.Errorf("forwarding is %s, the rules are\n%s\nand were\n%s", forwarding(t), now, found)
	}
}

// Where somebody began to route meanwhile, forwarding stays.
func TestForwardingOfOthers(t *testing.T) {
	if !asMachine(t) {
		return
	}
	setForwarding(t, "0")
	u := uplink{elsewhere(t)}
	must(t, locked(u.up))
	must(t, inOrder("nft add table ip other", "nft add chain ip other post { type nat hook postrouting priority 100 ; }"))
	must(t, locked(u.down))
	if forwarding(t) != "1" || strings.Contains(rules(t), "tare-forward") {
		t.Errorf("forwarding is %s, the rules are\n%s", forwarding(t), rules(t))
	}
}

func TestOnlyLoopback(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "search x\n": false, "nameserver 127.0.0.53\n": true, "nameserver ::1\n nameserver 127.0.0.1\n": true,
		"nameserver 127.0.0.53\nnameserver 10.0.0.1\n": false, "# nameserver 127.0.0.53\n": false,
	} {
		if got := onlyLoopback(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/ocirun"
	"golang.org/x/sys/unix"
)

// inNetwork runs a script, in which tarerun is "$TARERUN", in a network
// namespace of its own.
func (b *bench) inNetwork(script string) string {
	b.t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir, cmd.Env = b.bundle, append(os.Environ(), "TARERUN_TEST_MAIN=1", fmt.Sprintf("TARERUN=/proc/%d/exe --root %s", os.Getpid(), b.root), "ID="+b.id)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Errorf("%s: %v", out, err)
	}
	return string(out)
}

// change writes the bundle's configuration anew.
func (b *bench) change(f func(*specs.Spec)) {
	b.t.Helper()
	s, err := ocirun.ReadSpec(b.bundle)
	if err != nil {
		b.t.Fatal(err)
	}
	f(s)
	text, err := json.Marshal(s)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(b.bundle+"/config.json", text, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// TestNetDevices: devices move into the container with their lasting addresses
// and are up there; what fails leaves them where they were, as they were.
func TestNetDevices(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip (Debian's iproute2)")
	}
	const make = `ip link add one type veth peer name peer
ip link add two type veth peer name peer2
ip addr add 10.9.8.7/24 dev one
ip addr add 169.254.3.3/16 dev one scope link
ip -6 addr add fd00:1::7/64 dev one nodad
ip link set one mtu 1400 address 02:00:00:00:00:07 up
ip link set peer up
`
	b := newBench(t, "sh", "-c", "busybox ip addr show dev inner; busybox ip link show dev two && echo both")
	move := map[string]specs.LinuxNetDevice{"one": {Name: "inner"}, "two": {}}
	b.change(func(s *specs.Spec) { s.Linux.NetDevices = move })
	out := b.inNetwork(make + `$TARERUN run $ID
ip link show one 2>&1 | grep -q "does not exist" && echo gone`)
	for _, want := range []string{"inet 10.9.8.7/24", "inet6 fd00:1::7/64", "mtu 1400", "02:00:00:00:00:07", "UP", "both\n", "gone\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if strings.Contains(out, "169.254.3.3") {
		t.Errorf("an address of another scope came along: %s", out)
	}
	b.change(func(s *specs.Spec) {
		s.Linux.NetDevices = move
		s.Process.Args = []string{"nothing-to-execute"}
	})
	const back = `$TARERUN run $ID || echo refused
ip addr show dev one; ip link show dev two`
	out = b.inNetwork(make + back)
	for _, want := range []string{"executable file not found", "refused\n", "10.9.8.7/24", "fd00:1::7/64", "mtu 1400", ",UP", "two"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	b.change(func(s *specs.Spec) {
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"one": {}, "two": {Name: "one"}}
	})
	if out := b.inNetwork(make + back); !strings.Contains(out, "move the network device two to the container as one: file exists") || !strings.Contains(out, "10.9.8.7/24") {
		t.Error(out)
	}
	b.change(func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"none": {}} })
	if out := b.inNetwork("$TARERUN run $ID || true"); !strings.Contains(out, "there is no such device") {
		t.Error(out)
	}
	refuse := func(want string, change func(*specs.Spec)) {
		b.change(change)
		if out, code := b.run("run", b.id); code != 1 || !strings.Contains(out, want) {
			t.Errorf("%s: %s", want, out)
		}
	}
	refuse("invalid network device name", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"a/b": {}} })
	refuse("without a NET namespace", func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		s.Linux.NetDevices = move
	})
}

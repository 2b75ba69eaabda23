package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// uplink joins the namespace of a process to this one, by a pair of
// interfaces and a table of its own that translates addresses. Several stand
// side by side; which of them the machine forwards for, scripts/forward knows.
type uplink struct{ pid int }

func (u uplink) host() string  { return fmt.Sprintf("ttup%d", u.pid) }
func (u uplink) table() string { return fmt.Sprintf("tare-test-%d", u.pid) }

// locked calls f while nobody else changes uplinks or what is forwarded. The
// setting is what is locked: each network namespace has its own, and nothing is
// left behind.
func locked(f func() error) error {
	lock, err := os.Open("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	return f()
}

func (u uplink) up() error {
	subnet, err := freeSubnet()
	if err != nil {
		return err
	}
	enter := fmt.Sprintf("nsenter -t %d --net ", u.pid)
	return inOrder(
		fmt.Sprintf("ip link add %s type veth peer name up0 netns %d", u.host(), u.pid),
		fmt.Sprintf("ip addr add %s.1/30 dev %s", subnet, u.host()),
		fmt.Sprintf("ip link set %s up", u.host()),
		enter+"ip link set lo up",
		enter+fmt.Sprintf("ip addr add %s.2/30 dev up0", subnet),
		enter+"ip link set up0 up",
		enter+fmt.Sprintf("ip route add default via %s.1", subnet),
		"nft add table ip "+u.table(),
		"nft add chain ip "+u.table()+" post { type nat hook postrouting priority 100 ; }",
		"nft add rule ip "+u.table()+" post ip saddr "+subnet+".0/30 masquerade",
		filepath.Join(Root(), "scripts/forward")+" join "+u.host(),
	)
}

// down removes what is there of it: the interface may have gone with the
// namespace.
func (u uplink) down() error {
	_ = inOrder("ip link delete " + u.host())
	_ = inOrder("nft delete table ip " + u.table())
	return inOrder(filepath.Join(Root(), "scripts/forward") + " leave " + u.host())
}

// Join gives the network namespace of a process a way out through this one's,
// until the end of the test.
func Join(t testing.TB, pid int) {
	t.Helper()
	u := uplink{pid}
	t.Cleanup(func() {
		if err := locked(u.down); err != nil {
			t.Error(err)
		}
	})
	if err := locked(u.up); err != nil {
		t.Fatal(err)
	}
}

// inOrder runs commands until one fails.
func inOrder(lines ...string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	return nil
}

// freeSubnet is the beginning, three numbers, of a subnet that no interface has.
func freeSubnet() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	taken := map[string]bool{} // by either end of a link
	for _, a := range addrs {
		taken[a.String()] = true
	}
	for i := range 256 {
		if s := fmt.Sprintf("10.254.%d", i); !taken[s+".1/30"] && !taken[s+".2/30"] {
			return s, nil
		}
	}
	return "", errors.New("all of 10.254.0.0/16 is in use")
}

var ofUplink = regexp.MustCompile(`\b(?:ttup|tare-test-)(\d+)\b`)

// sweepUplinks takes down those that a killed process left: what the rules
// name and no interface has.
func sweepUplinks() {
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		return
	}
	for _, m := range ofUplink.FindAllSubmatch(rules, -1) {
		pid, err := strconv.Atoi(string(m[1]))
		if err != nil {
			continue
		}
		u := uplink{pid}
		if _, err := net.InterfaceByName(u.host()); err != nil {
			_ = u.down()
		}
	}
}

// A machine whose resolver listens on its loopback has none in the tests'
// namespace. There the file in which systemd-resolved(8) lists its own servers
// takes the place of resolv.conf(5), in a mount namespace of the tests.
const (
	resolvConf  = "/etc/resolv.conf"
	uplinksConf = "/run/systemd/resolve/resolv.conf"
)

// needsResolver tells whether the tests need that.
func needsResolver() bool {
	text, err := os.ReadFile(resolvConf)
	if err != nil || !onlyLoopback(string(text)) {
		return false
	}
	if _, err := os.Stat(uplinksConf); err != nil {
		fmt.Fprintf(os.Stderr, "the servers in %s are on the machine's loopback, where the tests do not reach them\n", resolvConf)
		return false
	}
	return true
}

// resolveOutside does it, in a mount namespace that is new.
func resolveOutside() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts from the machine: %w", err)
	}
	if err := unix.Mount(uplinksConf, resolvConf, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("put %s at %s: %w", uplinksConf, resolvConf, err)
	}
	return nil
}

// onlyLoopback tells whether a resolv.conf names servers, and all of them on
// the loopback.
func onlyLoopback(text string) bool {
	found := false
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "nameserver" {
			if ip := net.ParseIP(words[1]); ip == nil || !ip.IsLoopback() {
				return false
			}
			found = true
		}
	}
	return found
}

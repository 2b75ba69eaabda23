package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const inside = "TARE_TEST_INSIDE"

// Isolated runs the tests of a package in a network namespace of their own,
// whose only way out is a link that this process translates: bridges, rules
// and ports of the tests never meet those of the machine. For TestMain.
func Isolated(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	if os.Getenv(inside) != "" {
		if err := await(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer Clean()
		return m.Run()
	}
	code, err := reexecute()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot make a network namespace for the tests:", err)
		return 1
	}
	return code
}

// await waits until the namespace has its link.
func await() error {
	ready := os.NewFile(3, "ready")
	defer ready.Close()
	var b [1]byte
	if _, err := ready.Read(b[:]); err != nil {
		return fmt.Errorf("the test's network was not made: %w", err)
	}
	return nil
}

func reexecute() (code int, err error) {
	ours, theirs, err := pipe()
	if err != nil {
		return 1, err
	}
	defer ours.Close()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	theirs.Close()
	u := uplink{pid: cmd.Process.Pid}
	defer u.down()
	if err := u.up(); err != nil {
		_ = cmd.Process.Kill()
		return 1, errors.Join(err, cmd.Wait())
	}
	if _, err := ours.Write([]byte{1}); err != nil {
		return 1, err
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	} else if err != nil {
		return 1, err
	}
	return 0, nil
}

func pipe() (w, r *os.File, err error) {
	r, w, err = os.Pipe()
	return w, r, err
}

// uplink joins the namespace of a process to this one, by a pair of
// interfaces and a table of its own that translates addresses.
type uplink struct {
	pid        int
	forwarding []byte // of the machine, before
}

const forwardingFile = "/proc/sys/net/ipv4/ip_forward"

func (u *uplink) names() (host, table, subnet string) {
	return fmt.Sprintf("ttup%d", u.pid), fmt.Sprintf("tare-test-%d", u.pid), fmt.Sprintf("10.254.%d", u.pid&255)
}

func (u *uplink) up() (err error) {
	host, table, subnet := u.names()
	if u.forwarding, err = os.ReadFile(forwardingFile); err != nil {
		return err
	}
	if err := os.WriteFile(forwardingFile, []byte("1\n"), 0o644); err != nil {
		return err
	}
	enter := fmt.Sprintf("nsenter -t %d --net ", u.pid)
	for _, line := range []string{
		fmt.Sprintf("ip link add %s type veth peer name up0 netns %d", host, u.pid),
		fmt.Sprintf("ip addr add %s.1/30 dev %s", subnet, host),
		fmt.Sprintf("ip link set %s up", host),
		enter + "ip link set lo up",
		enter + fmt.Sprintf("ip addr add %s.2/30 dev up0", subnet),
		enter + "ip link set up0 up",
		enter + fmt.Sprintf("ip route add default via %s.1", subnet),
		"nft add table ip " + table,
		"nft add chain ip " + table + " post { type nat hook postrouting priority 100 ; }",
		"nft add rule ip " + table + " post ip saddr " + subnet + ".0/30 masquerade",
	} {
		words := strings.Fields(line)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	return nil
}

func (u *uplink) down() {
	host, table, _ := u.names()
	_ = exec.Command("ip", "link", "delete", host).Run()
	_ = exec.Command("nft", "delete", "table", "ip", table).Run()
	_ = os.WriteFile(forwardingFile, u.forwarding, 0o644)
}

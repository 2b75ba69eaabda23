package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A package's tests run in three processes: the one that was started, which
// waits; the tests, in a network namespace of their own; and the uplink's. The
// last is told by the variable whose it is. It takes the uplink down when the
// first one ends, by whatever signal.
const (
	inside = "TARE_TEST_INSIDE"
	linkOf = "TARE_TEST_UPLINK_OF"

	resolving = "with another resolv.conf" // a value of inside
)

// Isolated runs the tests of a package in a network namespace of their own,
// whose only way out is a link that the machine translates: bridges, rules
// and ports of the tests never meet those of the machine. For TestMain.
func Isolated(m *testing.M) int {
	switch {
	case os.Geteuid() != 0:
		return m.Run()
	case os.Getenv(linkOf) != "":
		return said(keepUplink())
	case os.Getenv(inside) != "":
		if err := await(); err != nil {
			return said(err)
		}
		defer Clean()
		return m.Run()
	}
	code, err := reexecute()
	if err != nil {
		return said(fmt.Errorf("cannot make a network namespace for the tests: %w", err))
	}
	return code
}

func said(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// await waits until the namespace has its link.
func await() error {
	ready := os.NewFile(3, "ready")
	defer ready.Close()
	var b [1]byte
	if _, err := ready.Read(b[:]); err != nil {
		return fmt.Errorf("the test's network was not made: %w", err)
	}
	if os.Getenv(inside) == resolving {
		return resolveOutside()
	}
	return nil
}

func reexecute() (code int, err error) {
	ready, made, err := os.Pipe()
	if err != nil {
		return 1, err
	}
	defer ready.Close()
	defer made.Close()
	how, flags := "1", uintptr(unix.CLONE_NEWNET)
	if needsResolver() {
		how, flags = resolving, flags|unix.CLONE_NEWNS
	}
	tests := again(inside + "=" + how)
	tests.Args = append(tests.Args, os.Args[1:]...)
	tests.Stdin, tests.Stdout = os.Stdin, os.Stdout
	tests.ExtraFiles = []*os.File{ready}
	tests.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if err := tests.Start(); err != nil {
		return 1, err
	}
	link := again(linkOf + "=" + strconv.Itoa(tests.Process.Pid))
	link.ExtraFiles = []*os.File{made}
	link.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	end, err := link.StdinPipe() // which nobody else holds, so it breaks with this process
	if err == nil {
		err = link.Start()
	}
	if err != nil {
		_ = tests.Process.Kill()
		return 1, errors.Join(err, tests.Wait())
	}
	made.Close()
	err = tests.Wait()
	end.Close()
	if lerr := link.Wait(); lerr != nil {
		return 1, fmt.Errorf("the uplink: %w", lerr)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// again is this program once more, with the variable.
func again(variable string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = os.Args[0]
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), variable)
	return cmd
}

// keepUplink makes the uplink, says so, and takes it down at the end of stdin.
func keepUplink() (err error) {
	pid, err := strconv.Atoi(os.Getenv(linkOf))
	if err != nil {
		return err
	}
	made := os.NewFile(3, "made")
	u := uplink{pid}
	defer func() { err = errors.Join(err, locked(u.down)) }()
	if err := locked(func() error { sweepUplinks(); return u.up() }); err != nil {
		return err
	}
	if _, err := made.Write([]byte{1}); err != nil {
		return err
	}
	made.Close()
	_, err = unix.Read(0, make([]byte, 1))
	return err
}

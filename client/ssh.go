package client

import (
	"bytes"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
)

// parseSSH gives the arguments of ssh that bring a connection to the daemon of
// ssh://[user@]host[:port][/path of its socket].
func parseSSH(host string) ([]string, error) {
	bad := func(why string) error {
		return fault.New(fault.Invalid, "unable to parse docker host `%s`: %s", host, why)
	}
	u, err := url.Parse(host)
	switch {
	case err != nil:
		return nil, bad("use ssh://user@host:port")
	case u.Hostname() == "":
		return nil, bad("no host specified")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, bad("there is something after the host and the path of the socket")
	case strings.HasPrefix(u.Hostname(), "-"):
		return nil, bad("a host starts with no dash") // ssh would take it for a flag
	}
	args := []string{"-o", "ConnectTimeout=30", "-T"}
	if u.User != nil {
		if _, given := u.User.Password(); given {
			return nil, bad("plain-text password is not supported: use a key")
		}
		args = append(args, "-l", u.User.Username())
	}
	if u.Port() != "" {
		args = append(args, "-p", u.Port())
	}
	socket := ""
	if u.Path != "" && u.Path != "/" {
		socket = " --host " + quote("unix://"+u.Path)
	}
	// Neither reads anything before it is connected, so the second gets all of it.
	const far = " system dial-stdio"
	return append(args, "--", u.Hostname(), "docker"+socket+far+" || tare"+socket+far), nil
}

// quote makes a word of a shell's command line.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// sshConn is a connection through ssh, which ends when its user closes it.
type sshConn struct {
	*net.UnixConn
	command *exec.Cmd
	stderr  tail
	ended   chan struct{} // closed when ssh has been waited for
}

// dialSSH starts ssh. Whether the daemon was reached shows at the first answer.
func dialSSH(host string) (*sshConn, error) {
	args, err := parseSSH(host)
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ssh"), os.NewFile(uintptr(pair[1]), "ssh")
	defer ours.Close()
	defer theirs.Close()
	nc, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	c := &sshConn{UnixConn: nc.(*net.UnixConn), command: exec.Command("ssh", args...), ended: make(chan struct{})}
	c.command.Stdin, c.command.Stdout, c.command.Stderr = theirs, theirs, &c.stderr
	// The terminal's interrupt is for the container, not for the way to it.
	c.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	settled := thread.Settle()
	err = c.command.Start()
	settled()
	if err != nil {
		nc.Close()
		return nil, fault.New(fault.Unavailable, "cannot connect to the daemon at %s: %w", host, err)
	}
	go func() {
		c.command.Wait()
		close(c.ended)
	}()
	return c, nil
}

// reason explains why the connection broke before anything was answered: ssh
// says it on its standard error.
func (c *sshConn) reason(err error) error {
	select {
	case <-c.ended:
	case <-time.After(time.Second):
		return fault.New(fault.Unavailable, "the connection through %q broke: %w", c.command.String(), err)
	}
	return fault.New(fault.Unavailable, "command %q has ended (%s), make sure the URL is valid, and Docker 18.09 or later or tare is installed on the remote host: stderr=%s",
		c.command.String(), c.command.ProcessState, strings.TrimSpace(c.stderr.String()))
}

// tail keeps the last of what is written to it. Reading and writing may be at
// the same time.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// maxTail bounds what is kept, in bytes.
const maxTail = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - maxTail; over > 0 {
		t.text = bytes.Clone(t.text[over:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

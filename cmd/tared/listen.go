package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// parseHost checks a -H value and completes it: a scheme, a host, dockerd's
// default ports.
func parseHost(host string, o *options) (string, error) {
	scheme, address, ok := strings.Cut(strings.TrimSpace(host), "://")
	if !ok {
		scheme, address = "tcp", scheme
	}
	switch scheme {
	case "fd":
	case "unix":
		if address == "" {
			address = filepath.Join(o.ExecRoot, "tare.sock")
		}
		path, err := filepath.Abs(address)
		if err != nil {
			return "", err
		}
		address = path
	case "tcp":
		name, port := address, ""
		if h, p, err := net.SplitHostPort(address); err == nil {
			name, port = h, p
		}
		name = strings.Trim(name, "[]")
		if strings.ContainsAny(name, "/@") {
			return "", fault.New(fault.Invalid, "invalid bind address (%s): want tcp://HOST:PORT", host)
		}
		if name == "" {
			name = "localhost"
			if strings.HasPrefix(address, ":") {
				name = "0.0.0.0"
			}
		}
		if port == "" {
			port = "2375"
			if o.usesTLS() {
				port = "2376"
			}
		}
		if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
			return "", fault.New(fault.Invalid, "invalid bind address (%s): %q is no port", host, port)
		}
		address = net.JoinHostPort(name, port)
		if !o.verifies() && !o.openTCP() {
			return "", fault.New(fault.Invalid, "refusing to listen on tcp://%s without %s, which gives root on this machine to whoever can connect: use --tlsverify with --tlscacert, --tlscert and --tlskey, or say --insecure-tcp", address, o.missing())
		}
	default:
		return "", fault.New(fault.Invalid, "invalid bind address (%s): unsupported proto '%s'", host, scheme)
	}
	return scheme + "://" + address, nil
}

// missing is what TCP sockets lack to know their clients.
func (o *options) missing() string {
	if o.usesTLS() {
		return "client verification"
	}
	return "TLS"
}

// listen opens the sockets of all hosts. On failure none stays open.
func listen(ctx context.Context, o *options) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(listeners))
			listeners = nil
		}
	}()
	passedSockets()
	for _, host := range o.Hosts {
		scheme, address, _ := strings.Cut(host, "://")
		var more []net.Listener
		switch scheme {
		case "unix":
			var l net.Listener
			if l, err = listenUnix(address, o.groupOf(address)); err == nil {
				more = []net.Listener{l}
			}
		case "tcp":
			var l net.Listener
			if l, err = listenTCP(ctx, address, o); err == nil {
				more = []net.Listener{l}
			}
		case "fd":
			more, err = activated(address, o)
		}
		listeners = append(listeners, more...)
		if err != nil {
			return listeners, fmt.Errorf("cannot listen on %s: %w", host, err)
		}
	}
	return listeners, nil
}

// unixListener removes its socket when it is closed, if it is still its own.
type unixListener struct {
	*net.UnixListener
	path  string
	inode uint64
}

func (l unixListener) Close() error {
	if inodeOf(l.path) == l.inode {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

func inodeOf(path string) uint64 {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0
	}
	return st.Ino
}

// listenUnix makes a socket of mode 0660 that root and the group may use. It
// comes to its place by rename, ready: it is never there with other rights, and
// one that a dead daemon left is replaced. All goes through a descriptor of the
// directory, since a socket's path has at most 108 bytes.
func listenUnix(path, group string) (net.Listener, error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	base := fmt.Sprintf("/proc/self/fd/%d/", dir.Fd())
	target := base + filepath.Base(path)
	conn, err := net.DialTimeout("unix", target, time.Second)
	if conn != nil {
		conn.Close()
	}
	if err == nil || errors.Is(err, syscall.EAGAIN) || errors.Is(err, os.ErrDeadlineExceeded) { // or so busy that its backlog is full
		return nil, fault.New(fault.Conflict, "another daemon answers there: stop it, or choose another socket")
	}
	if st, err := os.Lstat(target); err == nil && st.Mode().Type() != os.ModeSocket {
		return nil, fault.New(fault.Conflict, "there is a file that is no socket: remove it, or choose another path")
	}
	fresh := fmt.Sprintf("%s.tared-%d", base, os.Getpid())
	os.Remove(fresh)
	rootOnly := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failure error
		err := c.Control(func(fd uintptr) { failure = unix.Fchmod(int(fd), 0o600) }) // what bind gives to the file
		return errors.Join(err, failure)
	}}
	bound, err := rootOnly.Listen(context.Background(), "unix", fresh)
	if err != nil {
		return nil, err
	}
	l := bound.(*net.UnixListener)
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chown(fresh, 0, gid), os.Chmod(fresh, 0o660)); err != nil && os.Geteuid() == 0 {
		return nil, errors.Join(err, os.Remove(fresh), l.Close())
	}
	if err := os.Rename(fresh, target); err != nil {
		return nil, errors.Join(err, os.Remove(fresh), l.Close())
	}
	return unixListener{l, path, inodeOf(path)}, nil
}

// dockerGroup owns the socket of dockerd.
const dockerGroup = "docker"

// groupOf is the group of a socket: the one that was chosen, else that which
// clients at this place expect.
func (o *options) groupOf(path string) string {
	if o.Group == defaultGroup && filepath.Base(path) == "docker.sock" {
		return dockerGroup
	}
	return o.Group
}

// groupID finds the group by name or number. The default ones need not exist:
// the sockets are root's alone then.
func groupID(name string) (int, error) {
	if g, err := user.LookupGroup(name); err == nil {
		name = g.Gid
	}
	n, err := strconv.ParseUint(name, 10, 31)
	switch {
	case err == nil:
		return int(n), nil
	case name == defaultGroup || name == dockerGroup:
		return 0, nil
	}
	return 0, fault.New(fault.Invalid, "group %s not found: make it by groupadd, or choose another by --group", name)
}

func listenTCP(ctx context.Context, address string, o *options) (net.Listener, error) {
	var config *tls.Config
	if o.usesTLS() {
		var err error
		if config, err = tlsConfig(o); err != nil {
			return nil, err
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fault.New(fault.Conflict, "the port is taken: %w", err)
		}
		return nil, err
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, nil
}

func tlsConfig(o *options) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey)
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot use the certificate %s with the key %s: %w", o.TLSCert, o.TLSKey, err)
	}
	// HTTP/1.1 only: attach and exec take the connection over.
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if o.verifies() {
		pem, err := os.ReadFile(o.TLSCACert)
		if err != nil {
			return nil, err
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "%s holds no certificate", o.TLSCACert)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}

// firstPassed is the first descriptor that systemd passes.
const firstPassed = 3

// passedSockets counts the descriptors that systemd has passed to this process
// and keeps them from the programs that it will start: they come without
// close-on-exec.
func passedSockets() int {
	pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID"))
	count, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid != os.Getpid() || count < 1 {
		return 0
	}
	for fd := firstPassed; fd < firstPassed+count; fd++ {
		unix.CloseOnExec(fd)
	}
	return count
}

// activated gives the sockets that systemd has opened for us, sd_listen_fds(3):
// all of them, or the one of the number that is named.
func activated(which string, o *options) ([]net.Listener, error) {
	count := passedSockets()
	if count == 0 {
		return nil, fault.New(fault.Unavailable, "no sockets found via socket activation: make sure the service was started by systemd")
	}
	first, last := firstPassed, firstPassed+count-1
	if which != "" && which != "*" {
		n, err := strconv.Atoi(which)
		if err != nil || n < first || n > last {
			return nil, fault.New(fault.Invalid, "no such socket: systemd has passed numbers %d to %d", first, last)
		}
		first, last = n, n
	}
	var out []net.Listener
	for fd := first; fd <= last; fd++ {
		f := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return out, fmt.Errorf("descriptor %d is no listening socket: %w", fd, err)
		}
		if l, err = guardTCP(l, o); err != nil {
			return append(out, l), err
		}
		out = append(out, l)
	}
	return out, nil
}

// guardTCP holds a passed TCP socket to the same rule as one of our own.
func guardTCP(l net.Listener, o *options) (net.Listener, error) {
	if _, ok := l.(*net.TCPListener); !ok {
		return l, nil
	}
	if !o.verifies() && !o.openTCP() {
		return l, fault.New(fault.Invalid, "refusing the TCP socket %s without %s: use --tlsverify, or say --insecure-tcp", l.Addr(), o.missing())
	}
	if !o.usesTLS() {
		return l, nil
	}
	config, err := tlsConfig(o)
	if err != nil {
		return l, err
	}
	return tls.NewListener(l, config), nil
}

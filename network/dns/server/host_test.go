package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/network/dns"
)

// Variables of the processes that a test runs in.
const (
	asHost    = "TARE_DNS_TEST_HOST"    // in a network namespace of its own
	asProgram = "TARE_DNS_TEST_PROGRAM" // tare-dns itself, with its directory
)

// The tests run in a network namespace of their own, as its root.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asProgram) != "":
		os.Exit(program(os.Getenv(asProgram)))
	case os.Getenv(asHost) != "":
		if err := loUp(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case os.Geteuid() != 0:
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), asHost+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// program is what cmd/tare-dns does.
func program(dir string) int {
	s, err := New(Config{Socket: filepath.Join(dir, dns.SocketName), ResolvConf: filepath.Join(dir, "resolv.conf"), Idle: 10 * time.Second})
	var daemons []*seqpacket.Conn
	switch {
	case err != nil:
	case Inherits():
		daemons, err = s.Inherit()
	default:
		unix.CloseOnExec(3)
		var c *seqpacket.Conn
		if c, err = seqpacket.New(3); err == nil {
			daemons = append(daemons, c)
			err = s.Listen()
		}
	}
	if err == nil {
		err = s.Run(daemons...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func loUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// client is the network namespace of a container.
type client struct {
	ns      *os.File
	outlets *dns.Outlets
}

// container makes one, with outlets.
func container(t testing.TB) *client {
	t.Helper()
	testutil.RequireRoot(t)
	p := &client{}
	var err error
	home, openErr := os.Open("/proc/self/ns/net")
	must(t, openErr)
	defer home.Close()
	thread.Own(func() bool {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return true
		}
		if p.ns, err = os.Open("/proc/thread-self/ns/net"); err == nil {
			err = loUp()
		}
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil
	})
	must(t, err)
	t.Cleanup(func() { p.ns.Close() })
	p.outlets, err = dns.Open(p.ns)
	must(t, err)
	return p
}

// do runs f in the container's namespace.
func (p *client) do(f func() error) (err error) {
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	thread.Own(func() bool {
		if err = unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return true
		}
		err = f()
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil
	})
	return err
}

// run runs a program in the container's namespace.
func (p *client) run(t testing.TB, name string, args ...string) {
	t.Helper()
	must(t, p.do(func() error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
		}
		return nil
	}))
}

// dial connects to the resolver from the container.
func (p *client) dial(t testing.TB, proto string) net.Conn {
	t.Helper()
	var conn net.Conn
	must(t, p.do(func() (err error) { conn, err = net.Dial(proto, dns.Address.String()); return err }))
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return conn
}

func question(name string, typ uint16) *mdns.Msg {
	return new(mdns.Msg).SetQuestion(mdns.Fqdn(name), typ)
}

// exchange asks the resolver.
func (p *client) exchange(t testing.TB, proto string, q *mdns.Msg) *mdns.Msg {
	t.Helper()
	c := mdns.Conn{Conn: p.dial(t, proto), UDPSize: 65535}
	must(t, c.WriteMsg(q))
	a, err := c.ReadMsg()
	must(t, err)
	return a
}

// ask asks by UDP and gives the answer's code and its data, in its order.
func (p *client) ask(t testing.TB, name string, typ uint16) (string, []string) {
	t.Helper()
	return read(p.exchange(t, "udp", question(name, typ)))
}

func read(a *mdns.Msg) (string, []string) {
	var data []string
	for _, rr := range a.Answer {
		switch rr := rr.(type) {
		case *mdns.A:
			data = append(data, rr.A.String())
		case *mdns.AAAA:
			data = append(data, rr.AAAA.String())
		case *mdns.PTR:
			data = append(data, rr.Ptr)
		case *mdns.TXT:
			data = append(data, rr.Txt...)
		}
	}
	return mdns.RcodeToString[a.Rcode], data
}

// started is a server within the test.
type started struct {
	*Server
	daemon     *dns.Conn
	resolvConf string
	ended      chan error
}

func start(t testing.TB, idle time.Duration) *started {
	t.Helper()
	dir := t.TempDir()
	r := &started{resolvConf: filepath.Join(dir, "resolv.conf"), ended: make(chan error, 1)}
	var err error
	r.Server, err = New(Config{Socket: filepath.Join(dir, dns.SocketName), ResolvConf: r.resolvConf, Idle: idle})
	must(t, err)
	must(t, r.Listen())
	go func() { r.ended <- r.Run() }()
	r.daemon, err = dns.Dial(r.config.Socket)
	must(t, err)
	t.Cleanup(func() {
		for _, id := range r.hello().Sandboxes {
			r.drop(id, nil)
		}
		r.daemon.Close()
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

// add tells the server of a container.
func (r *started) add(t testing.TB, p *client, sb dns.Sandbox) {
	t.Helper()
	must(t, r.daemon.Set(t.Context(), sb, p.outlets))
	p.outlets.Close()
}

// teller is a server of the test, which answers TXT questions with its name
// and counts them.
type teller struct {
	asked atomic.Int32
	code  atomic.Int32
	gate  atomic.Pointer[chan struct{}] // answers wait until it is closed
}

// hold keeps the answers back until the result is called.
func (t *teller) hold() (release func()) {
	gate := make(chan struct{})
	t.gate.Store(&gate)
	return sync.OnceFunc(func() { t.gate.Store(nil); close(gate) })
}

// serve starts one, in the container's namespace or, for nil, in the host's.
func serve(t testing.TB, p *client, addr, word string) *teller {
	t.Helper()
	tell := &teller{}
	handler := mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		tell.asked.Add(1)
		if gate := tell.gate.Load(); gate != nil {
			<-*gate
		}
		a := new(mdns.Msg).SetRcode(q, int(tell.code.Load()))
		size := 1
		if q.Question[0].Name == "big." {
			size = 20
		}
		for range size {
			a.Answer = append(a.Answer, &mdns.TXT{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeTXT, Class: mdns.ClassINET}, Txt: []string{word}})
		}
		if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
			limit := 512
			if opt := q.IsEdns0(); opt != nil {
				limit = int(opt.UDPSize())
				a.SetEdns0(4096, false)
			}
			a.Truncate(limit)
		}
		_ = w.WriteMsg(a)
	})
	var udp net.PacketConn
	var tcp net.Listener
	listen := func() (err error) {
		if udp, err = net.ListenPacket("udp", addr); err == nil {
			tcp, err = net.Listen("tcp", addr)
		}
		return err
	}
	if p == nil {
		must(t, listen())
	} else {
		must(t, p.do(listen))
	}
	for _, s := range []*mdns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		go func() { _ = s.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() { _ = s.ShutdownContext(context.Background()) })
	}
	return tell
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

package server

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/network/dns"
)

var web = dns.Place{NetworkID: "n", Network: "net", Names: []string{"web"}, Addresses: addrs("10.1.0.2")}

// The end of a container's lifeline takes it back without a daemon.
func TestLifeline(t *testing.T) {
	r, p, other := start(t, time.Minute), container(t), container(t)
	theirs, ours, err := os.Pipe()
	must(t, err)
	p.outlets.Lifeline = theirs
	r.add(t, p, dns.Sandbox{ID: "s", Places: []dns.Place{web}})
	r.add(t, other, dns.Sandbox{ID: "o", Places: []dns.Place{{NetworkID: "n", Network: "net"}}})
	if code, _ := other.ask(t, "web", mdns.TypeA); code != "NOERROR" {
		t.Errorf("before: %s", code)
	}
	ours.Close()
	testutil.Eventually(t, 10*time.Second, "the name vanishes", func() bool {
		code, _ := other.ask(t, "web", mdns.TypeA)
		return code == "SERVFAIL"
	})
	if got := r.hello().Sandboxes; !slices.Equal(got, []string{"o"}) {
		t.Errorf("left are %v", got)
	}
}

// A process that nobody needs ends, and takes its socket with it.
func TestEndsWhenNobodyNeedsIt(t *testing.T) {
	r, p := start(t, time.Hour), container(t)
	r.add(t, p, dns.Sandbox{ID: "s"})
	r.hasten()
	if err := r.daemon.Set(t.Context(), dns.Sandbox{ID: "unknown"}, nil); !errors.Is(err, dns.ErrUnknown) {
		t.Errorf("a sandbox without sockets: %v", err)
	}
	must(t, r.daemon.Drop(t.Context(), "s"))
	must(t, r.daemon.Drop(t.Context(), "s"))
	err := <-r.ended
	r.ended <- err
	if _, serr := os.Stat(r.config.Socket); err != nil || !errors.Is(serr, os.ErrNotExist) {
		t.Errorf("it ends with %v, and the socket: %v", err, serr)
	}

	r, p = start(t, time.Hour), container(t)
	r.add(t, p, dns.Sandbox{ID: "s"})
	r.daemon.Close()
	r.drop("s", nil)
	err = <-r.ended
	r.ended <- err
}

// hasten has it wait for next to nothing from now on.
func (r *started) hasten() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.config.Idle = 10 * time.Millisecond
}

// So does one that no daemon can find any more.
func TestEndsWhenNobodyCanFindIt(t *testing.T) {
	r, p := start(t, time.Hour), container(t)
	r.add(t, p, dns.Sandbox{ID: "s"})
	r.hasten()
	r.daemon.Close()
	must(t, os.Remove(filepath.Join(filepath.Dir(r.resolvConf), dns.SocketName)))
	err := <-r.ended
	r.ended <- err
	if err != nil {
		t.Error(err)
	}
}

// spawn starts the test's program as tare-dns, as a daemon does.
func spawn(t *testing.T, program, dir string) (*dns.Conn, *exec.Cmd) {
	t.Helper()
	conn, theirs, err := seqpacket.Pair()
	must(t, err)
	defer theirs.Close()
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), asProgram+"="+dir)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	daemon := dns.NewConn(conn)
	t.Cleanup(func() {
		daemon.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return daemon, cmd
}

// A process becomes another version: it has the same number, the daemons'
// connections, the sockets with the questions that wait in them, and the names.
func TestReplace(t *testing.T) {
	p := container(t)
	dir := t.TempDir()
	daemon, cmd := spawn(t, "/proc/self/exe", dir)
	before, err := daemon.Hello(t.Context())
	must(t, err)
	theirs, ours, err := os.Pipe()
	must(t, err)
	defer ours.Close()
	p.outlets.Lifeline = theirs
	must(t, daemon.Set(t.Context(), dns.Sandbox{ID: "s", Places: []dns.Place{web}}, p.outlets))
	p.outlets.Close()
	second, err := dns.Dial(filepath.Join(dir, dns.SocketName))
	must(t, err)
	defer second.Close()
	_, err = second.Hello(t.Context())
	must(t, err)

	self, err := os.Open("/proc/self/exe")
	must(t, err)
	defer self.Close()
	copied, err := os.OpenFile(filepath.Join(dir, "other"), os.O_CREATE|os.O_WRONLY, 0o700)
	must(t, err)
	_, err = io.Copy(copied, self)
	must(t, err)
	must(t, copied.Close())
	other, err := os.Open(copied.Name())
	must(t, err)
	defer other.Close()

	script, err := os.Open("/proc/self/environ") // nothing to execute
	must(t, err)
	defer script.Close()
	if err := daemon.Replace(t.Context(), script); !dns.IsAnswer(err) {
		t.Errorf("becoming what is no program: %v", err)
	}
	for range 2 { // the second time it inherits what it inherited
		must(t, daemon.Replace(t.Context(), other))
		after, err := daemon.Hello(t.Context())
		must(t, err)
		want, err := dns.ProgramOf(other.Name())
		must(t, err)
		if after.PID != before.PID || after.PID != cmd.Process.Pid || after.Program != want || before.Program == want || !slices.Equal(after.Sandboxes, []string{"s"}) {
			t.Errorf("after is %+v, before %+v, the program is %+v", after, before, want)
		}
		for _, proto := range []string{"udp", "tcp"} {
			if code, data := read(p.exchange(t, proto, question("web", mdns.TypeA))); code != "NOERROR" || len(data) != 1 {
				t.Errorf("after, by %s: %s %v", proto, code, data)
			}
		}
	}
	third, err := dns.Dial(filepath.Join(dir, dns.SocketName))
	must(t, err)
	defer third.Close()
	for _, c := range []*dns.Conn{second, third} {
		if h, err := c.Hello(t.Context()); err != nil || h.PID != before.PID {
			t.Errorf("another daemon: %+v, %v", h, err)
		}
	}
	// The lifeline was inherited too; then nobody needs the process.
	ours.Close()
	for _, c := range []*dns.Conn{daemon, second, third} {
		c.Close()
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

package forward_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/logs/driver"
	"github.com/tarehq/tare/logs/forward"
	"github.com/tarehq/tare/logs/packed"
)

// receiver is a small syslog server on a unix socket, which can go away and
// come back.
type receiver struct {
	t    *testing.T
	path string

	mu    sync.Mutex
	lines []string
	l     net.Listener
	conns []net.Conn
}

func (r *receiver) up() {
	r.t.Helper()
	l, err := net.Listen("unix", r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.l = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns = append(r.conns, c)
			r.mu.Unlock()
			go r.read(c)
		}
	}()
}

func (r *receiver) read(c net.Conn) {
	for s := bufio.NewScanner(c); s.Scan(); {
		_, line, _ := strings.Cut(s.Text(), ": ")
		r.mu.Lock()
		r.lines = append(r.lines, line)
		r.mu.Unlock()
	}
}

func (r *receiver) down() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.l != nil {
		r.l.Close()
	}
	for _, c := range r.conns {
		c.Close()
	}
	r.l, r.conns = nil, nil
}

func (r *receiver) count(line string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if l == line {
			n++
		}
	}
	return n
}

// whole waits for all lines below n, each at least once and at first in order.
func (r *receiver) whole(n int) {
	r.t.Helper()
	testutil.Eventually(r.t, 20*time.Second, fmt.Sprintf("all %d lines arrive", n), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		next := 0
		for _, l := range r.lines {
			if l == fmt.Sprint("line ", next) {
				next++
			}
		}
		return next == n
	})
}

type rig struct {
	t       *testing.T
	dir     string
	w       *logs.Writer
	f       *forward.Forwarder
	to      *receiver
	running chan struct{}
	written int
}

func newRig(t *testing.T) *rig {
	dir := t.TempDir()
	r := &rig{t: t, dir: dir, to: &receiver{t: t, path: filepath.Join(dir, "sock")}, running: make(chan struct{})}
	t.Cleanup(r.to.down)
	if err := os.Mkdir(filepath.Join(dir, "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.w, err = logs.NewWriter(filepath.Join(dir, "log", forward.LogName), logs.Options{MaxSize: 16 << 10, MaxFiles: 100}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.w.Close() })
	r.daemon()
	return r
}

// daemon begins to feed, as after a start of the daemon.
func (r *rig) daemon() {
	r.t.Helper()
	f, err := forward.New(filepath.Join(r.dir, "spool"), packed.Unpack, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	r.f = f
	r.t.Cleanup(func() { f.Close(context.Background()) })
}

func (r *rig) begin() {
	r.f.Begin("c", forward.Source{Dir: filepath.Join(r.dir, "log"), Driver: "syslog", Running: func() <-chan struct{} { return r.running },
		Info: driver.Info{ContainerID: "c", Config: map[string]string{"syslog-address": "unix://" + r.to.path}}})
}

func (r *rig) stop() {
	r.t.Helper()
	if err := r.f.Close(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) write(n int) {
	for range n {
		r.w.Write(logs.Stdout, fmt.Appendf(nil, "line %d\n", r.written))
		r.written++
	}
}

// Nothing is lost while the receiver is away, or the daemon, or both, and what
// has long arrived does not come again.
func TestOutages(t *testing.T) {
	r := newRig(t)
	r.begin()
	r.write(500) // before there is a receiver
	r.to.up()
	r.to.whole(500)
	cursor := filepath.Join(r.dir, "log", "cursor.json")
	testutil.Eventually(t, 5*time.Second, "the cursor is stored", func() bool { _, err := os.Stat(cursor); return err == nil })
	r.to.down()
	r.write(500)
	r.to.up()
	r.to.whole(1000)
	r.stop() // the daemon
	r.to.down()
	r.write(500)
	if err := packed.Pack(filepath.Join(r.dir, "log", forward.LogName), new(sync.Mutex)); err != nil {
		t.Fatal(err)
	}
	r.daemon()
	r.begin()
	r.to.up()
	r.to.whole(1500)
	close(r.running)
	r.stop()
	if n := r.to.count("line 0"); n > 2 {
		t.Errorf("the first line came %d times", n)
	}
}

// A receiver that does not read holds up nothing but itself.
func TestReceiverThatDoesNotRead(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("unix", r.to.path)
	if err != nil {
		t.Fatal(err)
	}
	r.begin()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	r.write(20000)
	r.stop()
	l.Close()
	c.Close()
	r.daemon()
	r.to.up()
	r.begin()
	r.to.whole(20000)
}

// The log of a removed container is delivered, by the next daemon if need be,
// and then it is gone.
func TestSpool(t *testing.T) {
	r := newRig(t)
	r.begin()
	r.write(300)
	close(r.running)
	r.f.Spool("c")
	if err := os.Mkdir(filepath.Join(r.dir, "log"), 0o700); err != nil {
		t.Fatalf("the container's directory is still there: %v", err)
	}
	r.stop()
	r.daemon()
	r.to.up()
	r.to.whole(300)
	testutil.Eventually(t, 10*time.Second, "the spool is empty", func() bool {
		left, err := os.ReadDir(filepath.Join(r.dir, "spool"))
		return err == nil && len(left) == 0
	})
}

// A connection is made anew when the options say so, and nothing comes twice
// for it.
func TestRenewedConnection(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("unix", r.to.path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connections, got := make(chan struct{}, 100), make(chan []byte, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections <- struct{}{}
			all, _ := io.ReadAll(c)
			got <- all
		}
	}()
	r.f.Begin("c", forward.Source{Dir: filepath.Join(r.dir, "log"), Driver: "fluentd", Running: func() <-chan struct{} { return r.running },
		Info: driver.Info{ContainerID: "c", Config: map[string]string{"fluentd-address": "unix://" + r.to.path, "fluentd-async-reconnect-interval": "100ms"}}})
	testutil.Eventually(t, 20*time.Second, "three connections", func() bool {
		r.write(1)
		return len(connections) >= 3
	})
	close(r.running)
	var all []byte
	testutil.Eventually(t, 20*time.Second, "all lines arrive", func() bool {
		select {
		case part := <-got:
			all = append(all, part...)
		default:
		}
		return strings.Contains(string(all), fmt.Sprintf("line %d\xa6source", r.written-1))
	})
	if n := strings.Count(string(all), "line "); n != r.written {
		t.Errorf("%d lines of %d", n, r.written)
	}
}

// Lines that came in parts say so.
func TestParts(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var all []byte
		buf := make([]byte, 64<<10)
		for !strings.Contains(string(all), "an end") {
			n, err := c.Read(buf)
			if all = append(all, buf[:n]...); err != nil {
				break
			}
		}
		got <- string(all)
	}()
	w, err := logs.NewWriter(filepath.Join(dir, forward.LogName), logs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Write(logs.Stdout, []byte(strings.Repeat("x", 40<<10)+"\nafter\nan end"))
	w.Flush() // as at the end of a run: it is no part of a line
	f, err := forward.New(filepath.Join(dir, "spool"), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(t.Context())
	f.Begin("c", forward.Source{Dir: dir, Driver: "fluentd", Running: func() <-chan struct{} { return nil },
		Info: driver.Info{ContainerID: "c", Config: map[string]string{"fluentd-address": "unix://" + filepath.Join(dir, "sock")}}})
	text := <-got
	var order []int
	for _, want := range []string{"\xafpartial_ordinal\xa11", "\xafpartial_ordinal\xa12", "\xafpartial_ordinal\xa13", "after"} {
		order = append(order, strings.Index(text, want))
	}
	if slices.Contains(order, -1) || !slices.IsSorted(order) || strings.Count(text, "partial_last\xa4true") != 1 || strings.Count(text, "partial_last\xa5false") != 2 {
		t.Errorf("%v in %.100q", order, text)
	}
}

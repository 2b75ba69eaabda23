package e2e

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// collector is a syslog server on a unix socket.
type collector struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (c *collector) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for s := bufio.NewScanner(conn); s.Scan(); {
				_, line, _ := strings.Cut(s.Text(), "]: ")
				c.mu.Lock()
				c.seen[line] = true
				c.mu.Unlock()
			}
		}()
	}
}

func (c *collector) has(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := 1; i <= n; i++ {
		if !c.seen[fmt.Sprint(i)] {
			return false
		}
	}
	return true
}

// TestRemoteLogOutlivesOutages has containers write while their receiver is
// away, and while the daemon is killed; a container that removes itself is
// among them. Every line arrives, and can be read here all the time.
func TestRemoteLogOutlivesOutages(t *testing.T) {
	testutil.RequireRoot(t)
	path := filepath.Join(t.TempDir(), "sock")
	d := daemon.Start(t, "--log-driver", "syslog", "--log-opt", "syslog-address=unix://"+path)
	d.ImportBusybox(t)
	if out := d.Tare(t, "run", "-d", "--name", "feed", "busybox", "sh", "-c", "seq 1 2000; until test -e /go; do sleep 0.05; done; seq 2001 4000"); out == "" {
		t.Fatal("no container")
	}
	if out := d.Tare(t, "run", "--name", "gone", "busybox", "seq", "4001", "5000"); !strings.HasSuffix(out, "5000") {
		t.Fatalf("%.100q", out)
	}
	d.Tare(t, "rm", "gone")
	d.Signal(t, syscall.SIGKILL)
	d.Up(t)
	d.Tare(t, "exec", "feed", "touch", "/go")
	if code := d.Tare(t, "wait", "feed"); code != "0" {
		t.Errorf("exit code %s", code)
	}
	if out := d.Tare(t, "logs", "--tail", "1", "feed"); out != "4000" {
		t.Errorf("the log ends with %q", out)
	}
	c := &collector{seen: map[string]bool{}}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go c.serve(l)
	testutil.Eventually(t, 30*time.Second, "all 5000 lines arrive", func() bool { return c.has(5000) })
}

// TestFollowerThatDoesNotRead leaves a follower's socket full: the container
// writes on to its end, and others read its log.
func TestFollowerThatDoesNotRead(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "create", "--name", "loud", "busybox", "sh", "-c", "sleep 0.2; seq 1 500000")
	conn, err := net.Dial("unix", d.Dir+"/tare.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d.Tare(t, "start", "loud")
	if _, err := fmt.Fprint(conn, "GET /containers/loud/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 15)); err != nil { // it follows
		t.Fatal(err)
	}
	if code := d.Tare(t, "wait", "loud"); code != "0" {
		t.Errorf("exit code %s", code)
	}
	if out := d.Tare(t, "logs", "--tail", "1", "loud"); out != "500000" {
		t.Errorf("the log ends with %q", out)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder // chunks, and frames in them; the last chunk is empty
	for buf := make([]byte, 64<<10); !strings.HasSuffix(all.String(), "\r\n0\r\n\r\n"); {
		n, err := conn.Read(buf)
		if all.Write(buf[:n]); err != nil {
			t.Fatalf("after %d bytes: %v", all.Len(), err)
		}
	}
	if text := all.String(); strings.Count(text, "\n") < 500000 || !strings.Contains(text, "500000\n") {
		t.Errorf("the follower got %d bytes", len(text))
	}
}

package compat

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestNewerContainer lets the daemon meet a supervising process of a protocol
// that it does not know: it says so, leaves the container alone, and a daemon
// that knows the protocol takes it over.
func TestNewerContainer(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	id := d.Tare(t, "run", "-d", "--name", "newer", "-p", "127.0.0.1:0:80", "busybox", "httpd", "-f", "-h", "/etc")
	_, port, _ := strings.Cut(d.Tare(t, "port", "newer", "80"), ":")
	d.Signal(t, syscall.SIGKILL)
	sock := filepath.Join(d.Dir, "exec/c", id, "sock")
	if err := os.Rename(sock, sock+".own"); err != nil {
		t.Fatal(err)
	}
	future, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: shorter(t, sock), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer future.Close()
	go answerHello(future, 99)

	d.Up(t)
	if _, err := d.Try("exec", "newer", "true"); err == nil || !strings.Contains(err.Error(), "protocol version 99") {
		t.Errorf("exec into a container of a newer version: %v", err)
	}
	if out := d.Tare(t, "inspect", "--format", "{{.State.Status}}", "newer"); out != "running" {
		t.Errorf("it is %s", out)
	}
	if c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 5*time.Second); err != nil {
		t.Errorf("its published port leads nowhere: %v", err)
	} else {
		c.Close()
	}
	d.Signal(t, syscall.SIGTERM)
	future.Close()
	if err := os.Rename(sock+".own", sock); err != nil {
		t.Fatal(err)
	}
	d.Up(t)
	if out := d.Tare(t, "exec", "newer", "echo", "here"); out != "here" {
		t.Errorf("after the return of its own version: %q", out)
	}
}

// shorter names a path in a directory whose path may be too long for a socket.
func shorter(t *testing.T, path string) string {
	t.Helper()
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
}

// answerHello speaks the one part of the protocol that never changes.
func answerHello(l *net.UnixListener, version int) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 64<<10)
			for {
				n, err := c.Read(buf)
				if err != nil || n < 2 {
					return
				}
				var m struct{ ID uint64 }
				if json.Unmarshal(buf[1:n], &m) != nil {
					return
				}
				fmt.Fprintf(c, `m{"id":%d,"body":{"Version":%d,"Status":{"Phase":"running","Pid":1}}}`, m.ID, version)
			}
		}()
	}
}

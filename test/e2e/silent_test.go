package e2e

import (
	"bufio"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// supervisor is the pid of a container's supervising process.
func supervisor(t *testing.T, d *daemon.Daemon, name string) int {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + d.Tare(t, "inspect", "--format", "{{.State.Pid}}", name) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(stat))[3])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestSilentSupervisor stops a supervising process by SIGSTOP while the daemon
// is away. The next daemon comes up all the same, leaves the container alone
// and takes it over when the process answers again. A daemon that is told to end
// while it still waits for the answer harms nobody.
func TestSilentSupervisor(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--rm", "--name", "silent", "-p", "0:80", "busybox", "httpd", "-f", "-h", "/etc")
	d.Tare(t, "run", "-d", "--rm", "--name", "other", "busybox", "sleep", "1000")
	address, _, _ := strings.Cut(d.Tare(t, "port", "silent", "80"), "\n") // that of IPv6 follows
	pid := d.Tare(t, "inspect", "--format", "{{.State.Pid}}", "silent")
	process := supervisor(t, d, "silent")
	testutil.Stop(t, process)
	t.Cleanup(func() { _ = syscall.Kill(process, syscall.SIGCONT) })
	d.Signal(t, syscall.SIGKILL)

	d.Begin(t) // it waits for the answer, and is told to end
	testutil.Eventually(t, 10*time.Second, "the daemon has begun", func() bool {
		c, err := net.Dial("unix", strings.TrimPrefix(d.Host, "unix://"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	d.Signal(t, syscall.SIGTERM)

	d.Up(t)
	if out := d.Tare(t, "inspect", "--format", "{{.State.Status}}", "silent"); out != "running" {
		t.Errorf("the silent container is %s", out)
	}
	if _, err := d.Try("exec", "silent", "true"); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("exec: %v", err)
	}
	if out := d.Tare(t, "exec", "other", "echo", "here"); out != "here" {
		t.Errorf("the other container says %q", out)
	}
	_, port, _ := strings.Cut(address, ":")
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 5*time.Second)
	if err != nil {
		t.Errorf("the published port leads nowhere: %v", err)
	} else {
		c.Close()
	}

	if err := syscall.Kill(process, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 30*time.Second, "it is taken over", func() bool {
		_, err := d.Try("exec", "silent", "true")
		return err == nil
	})
	if now := d.Tare(t, "inspect", "--format", "{{.State.Pid}}", "silent"); now != pid {
		t.Errorf("pid %s, was %s", now, pid)
	}
	d.Tare(t, "stop", "-t", "0", "silent")
}

// TestManyWaitForStart attaches more clients to a created container than one
// message to its supervising process can carry, and some that leave again.
func TestManyWaitForStart(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "create", "--name", "popular", "busybox", "echo", "hello all")
	var clients []net.Conn
	for i := range 330 {
		c, err := net.Dial("unix", strings.TrimPrefix(d.Host, "unix://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("POST /containers/popular/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		head := bufio.NewReader(c)
		for line := ""; line != "\r\n"; {
			if line, err = head.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		if i < 30 {
			c.Close()
			continue
		}
		clients = append(clients, c)
	}
	d.Tare(t, "start", "popular")
	for i, c := range clients {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		buf := make([]byte, 100)
		n := 0
		for n < 8+len("hello all\n") {
			m, err := c.Read(buf[n:])
			if err != nil {
				break
			}
			n += m
		}
		// 64 are attached with the start, those that have just left among them;
		// for the later ones the container may be over.
		if i < 64-30 && !strings.HasSuffix(string(buf[:n]), "hello all\n") {
			t.Errorf("client %d got %q", i, buf[:n])
		}
		c.Close()
	}
}

package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// reads are the commands that wait for no container, of the one named hung.
var reads = [][]string{
	{"ps", "-a"}, {"inspect", "hung"}, {"stats", "--no-stream", "hung"}, {"stats", "--no-stream"}, {"logs", "hung"}, {"port", "hung"},
	{"info"}, {"container", "ls", "--filter", "name=hung"},
}

// answer expects that each of the reads answers, and another container lives.
func answer(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	var all sync.WaitGroup
	for _, args := range reads {
		all.Go(func() {
			done := make(chan error, 1)
			go func() {
				_, err := d.Try(args...)
				done <- err
			}()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%v: %v", args, err)
				}
			case <-time.After(10 * time.Second): // what waits for a container waits for good
				t.Errorf("%v does not answer", args)
			}
		})
	}
	all.Wait()
	if out := d.Tare(t, "run", "--rm", "--network", "none", "busybox", "echo", "alive"); out != "alive" {
		t.Errorf("another container says %q", out)
	}
}

// TestReadsBesideASilentSupervisor stops the supervising process of a container:
// nobody who only looks waits for it.
func TestReadsBesideASilentSupervisor(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "hung", "busybox", "sh", "-c", "echo said; sleep 1000")
	testutil.Eventually(t, 10*time.Second, "it has spoken", func() bool { return d.Tare(t, "logs", "hung") == "said" })
	process := supervisor(t, d, "hung")
	testutil.Stop(t, process)
	t.Cleanup(func() { _ = syscall.Kill(process, syscall.SIGCONT) })
	stopped := make(chan error, 1)
	go func() {
		_, err := d.Try("stop", "-t", "0", "hung")
		stopped <- err
	}()
	answer(t, d)
	if err := syscall.Kill(process, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	<-stopped // with an error, if it has waited long enough
	testutil.Eventually(t, 30*time.Second, "it is stopped", func() bool {
		_, _ = d.Try("stop", "-t", "0", "hung")
		return d.Tare(t, "inspect", "--format", "{{.State.Status}}", "hung") == "exited"
	})
}

// TestReadsBesideADeadFileSystem has a container's process wait for a file system
// that does not answer, where not even SIGKILL ends it: a stop hangs, and nobody
// who only looks.
func TestReadsBesideADeadFileSystem(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	dir := filepath.Join(d.Dir, "dead")
	revive := mountDead(t, dir)
	d.Tare(t, "run", "-d", "--name", "hung", "-v", dir+":/dead", "busybox", "ls", "/dead")
	pid, err := strconv.Atoi(d.Tare(t, "inspect", "--format", "{{.State.Pid}}", "hung"))
	if err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 10*time.Second, "the process hangs", func() bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
		return strings.Contains(string(stat), "fuse") || strings.Contains(string(stat), "request_wait_answer")
	})
	removed := make(chan error, 1)
	go func() {
		_, err := d.Try("rm", "-f", "hung")
		removed <- err
	}()
	testutil.Eventually(t, 10*time.Second, "it is killed in vain", func() bool { return pendingKill(pid) })
	answer(t, d)
	revive()
	<-removed
	testutil.Eventually(t, 30*time.Second, "it is removed", func() bool {
		_, _ = d.Try("rm", "-f", "hung")
		_, err := d.Try("inspect", "hung")
		return err != nil
	})
}

// pendingKill tells whether a process has been sent SIGKILL and lives.
func pendingKill(pid int) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		for _, name := range []string{"SigPnd:", "ShdPnd:"} {
			if value, ok := strings.CutPrefix(line, name); ok {
				set, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
				if set&(1<<(unix.SIGKILL-1)) != 0 {
					return true
				}
			}
		}
	}
	return false
}

// Requests and answers of fuse(4), of linux/fuse.h.
const (
	fuseLookup, fuseGetattr, fuseInit, fuseOpendir = 1, 3, 26, 27
	fuseStatfs, fuseGetxattr                       = 17, 22
)

// mountDead mounts a file system that has a root directory, and does not answer
// who opens it. The function returned gives it up, and all who wait go on.
func mountDead(t *testing.T, dir string) (revive func()) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("dead", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		t.Skipf("no FUSE here: %v", err)
	}
	var once sync.Once
	revive = func() {
		once.Do(func() {
			_ = unix.Unmount(dir, unix.MNT_FORCE) // it ends all that waits
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			unix.Close(fd)
		})
	}
	t.Cleanup(revive)
	go serveDead(fd)
	return revive
}

func serveDead(fd int) {
	request := make([]byte, 1<<17)
	for {
		n, err := unix.Read(fd, request)
		if err == unix.EINTR || err == unix.ENOENT {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		unique := binary.LittleEndian.Uint64(request[8:])
		reply := func(errno int32, body []byte) {
			out := binary.LittleEndian.AppendUint32(nil, uint32(16+len(body)))
			out = binary.LittleEndian.AppendUint32(out, uint32(errno))
			out = binary.LittleEndian.AppendUint64(out, unique)
			_, _ = unix.Write(fd, append(out, body...))
		}
		switch binary.LittleEndian.Uint32(request[4:]) {
		case fuseInit:
			body := make([]byte, 64) // struct fuse_init_out
			copy(body, request[40:48])
			binary.LittleEndian.PutUint32(body[20:], 4096) // max_write
			reply(0, body)
		case fuseGetattr:
			body := make([]byte, 16+88) // struct fuse_attr_out
			binary.LittleEndian.PutUint64(body, 3600)
			binary.LittleEndian.PutUint64(body[16:], 1) // ino
			binary.LittleEndian.PutUint32(body[16+60:], unix.S_IFDIR|0o755)
			binary.LittleEndian.PutUint32(body[16+64:], 2) // nlink
			reply(0, body)
		case fuseStatfs:
			reply(0, make([]byte, 80))
		case fuseGetxattr:
			reply(-int32(unix.ENOSYS), nil)
		case fuseLookup:
			reply(-int32(unix.ENOENT), nil)
		case fuseOpendir:
			// the one that waits
		default:
			reply(-int32(unix.ENOSYS), nil)
		}
	}
}

// TestTwoHundredClients has as many clients at once as some machines have: half
// of them look, half run something. All get what is theirs.
func TestTwoHundredClients(t *testing.T) {
	testutil.RequireRoot(t)
	if testing.Short() {
		t.Skip("two hundred processes")
	}
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "hung", "busybox", "sh", "-c", "echo said; sleep 1000")
	all(t, 200, func(i int) error {
		if i%2 == 0 {
			_, err := d.Try(reads[i/2%len(reads)]...)
			return err
		}
		word := fmt.Sprint("word-", i)
		args := []string{"run", "--rm", "--network", []string{"none", "bridge"}[i/2%2], "busybox", "echo", word}
		if i%8 == 3 {
			args = []string{"exec", "hung", "echo", word}
		}
		out, err := d.Try(args...)
		if err == nil && out != word {
			err = fmt.Errorf("%v says %q", args, out)
		}
		return err
	})
	if left := d.Tare(t, "ps", "-aq"); strings.Count(left, "\n") != 0 {
		t.Errorf("still listed: %s", left)
	}
}

package sid

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// Dockerd starts the place's dockerd, with images in containerd's store, and
// returns where it listens. Its network reaches the world through the test's.
func (p *Place) Dockerd(t testing.TB) (host string) {
	t.Helper()
	daemon.Join(t, p.pid)
	group := "/" + filepath.Base(p.Dir)
	config := filepath.Join(p.Dir, "daemon.json")
	if err := os.WriteFile(config, []byte(`{"features": {"containerd-snapshotter": true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(p.Dir, "dockerd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	socket := filepath.Join(p.Dir, "docker.sock")
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(p.pid), "--mount", "--pid", "--net", "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"dockerd", "-H", "unix://"+socket, "--data-root", p.Dir+"/data", "--exec-root", p.Dir+"/exec", "--pidfile", p.Dir+"/pid",
		"--config-file", config, "--cgroup-parent", group)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It ends with the place; the mounts that it made on the machine's /tmp are its
	// namespace's own. What it leaves are control groups.
	t.Cleanup(func() {
		stop(p.Dir + "/pid")
		_ = cmd.Wait()
		if err := removeGroups(group); err != nil {
			t.Error(err)
		}
	})
	testutil.Eventually(t, time.Minute, "dockerd answers", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return "unix://" + socket
}

// stop asks dockerd to end, which it writes its number in its own namespace for:
// it is the only process with that file on its command line.
func stop(pidfile string) {
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return
	}
	for _, path := range list {
		text, err := os.ReadFile(path)
		if words := strings.Split(string(text), "\x00"); err == nil && words[0] == "dockerd" && strings.Contains(string(text), "\x00"+pidfile+"\x00") {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
		}
	}
}

// removeGroups removes the control groups of that name in all hierarchies.
func removeGroups(name string) error {
	tops, err := filepath.Glob("/sys/fs/cgroup/*" + name)
	if err != nil {
		return err
	}
	for _, top := range append(tops, "/sys/fs/cgroup"+name) {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append([]string{path}, dirs...)
			}
			return nil
		})
		for _, dir := range dirs {
			if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
				return fmt.Errorf("remove the control group %s: %w", dir, err)
			}
		}
	}
	return nil
}

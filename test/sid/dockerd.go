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
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// keep runs dockerd until its input ends. All that it starts ends with it, as do
// its mounts: it is the first of a process namespace.
const keep = `unshare --mount --pid --fork --kill-child --mount-proc dockerd "$@" </dev/null &
cat >/dev/null
read -r first rest </proc/$!/task/$!/children
kill -TERM $first
wait`

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
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(p.pid), "--mount", "--net", "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", keep, "sh",
		"-H", "unix://"+socket, "--data-root", p.Dir+"/data", "--exec-root", p.Dir+"/exec", "--pidfile", p.Dir+"/pid",
		"--config-file", config, "--cgroup-parent", group)
	cmd.Stdout, cmd.Stderr = log, log
	input, err := cmd.StdinPipe() // which breaks with this process
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
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

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// dataRoot makes the daemon's data root.
func dataRoot(t *testing.T, d *daemon.Daemon) string {
	t.Helper()
	data := filepath.Join(d.Dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	return data
}

// TestBtrfs has all layers and containers in subvolumes.
func TestBtrfs(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t, "--storage-driver", "btrfs")
	data := dataRoot(t, d)
	d.AtEnd(testutil.MountBtrfs(t, data))
	d.Up(t)
	limitedTree(t, d)
	wholeTrees(t, d, "btrfs", func(root string) {
		// Containers may make subvolumes too, and make them unwritable.
		for _, args := range [][]string{{"create", root + "/own"}, {"create", root + "/own/inner"}, {"snapshot", "-r", root + "/own", root + "/own/frozen"}} {
			if out, err := exec.Command("btrfs", append([]string{"subvolume"}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	})
	out, err := exec.Command("btrfs", "subvolume", "list", data).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("subvolumes are left: %s, %v", out, err)
	}
}

// limitedTree has a container write more than it may, and what it may.
func limitedTree(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "small", "--storage-opt", "size=8m", "busybox", "sleep", "1000")
	if out, err := d.Try("exec", "small", "dd", "if=/dev/zero", "of=/much", "bs=1M", "count=20"); err == nil || !strings.Contains(err.Error(), "Disk quota exceeded") {
		t.Errorf("20 MB are written where 8 MB may be: %s %v", out, err)
	}
	d.Tare(t, "exec", "small", "rm", "/much")
	d.Tare(t, "restart", "-t", "0", "small")
	if _, err := d.Try("exec", "small", "dd", "if=/dev/zero", "of=/much", "bs=1M", "count=20"); err == nil {
		t.Error("the limit ends with the run")
	}
	d.Tare(t, "run", "--rm", "busybox", "dd", "if=/dev/zero", "of=/much", "bs=1M", "count=20")
	d.Tare(t, "rm", "-f", "small")
	d.Tare(t, "rmi", "busybox")
}

// TestVFS has them all copied.
func TestVFS(t *testing.T) {
	testutil.RequireRoot(t)
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal("runc is missing; make test installs it")
	}
	d := daemon.New(t, "-s", "vfs", "--add-runtime", "runc="+runc)
	d.Up(t)
	wholeTrees(t, d, "vfs", func(string) {
		if out := d.Tare(t, "run", "--rm", "--runtime", "runc", "busybox", "sh", "-c", "echo x > /x; cat /x"); out != "x" {
			t.Errorf("by runc: %q", out)
		}
	})
}

// wholeTrees follows an image and its containers from the first day to the
// last. own is called with a container's root.
func wholeTrees(t *testing.T, d *daemon.Daemon, driver string, own func(root string)) {
	d.ImportBusybox(t)
	if out := d.Tare(t, "info", "--format", "{{.Driver}} {{index .DriverStatus 0}}"); out != driver+" [driver-type io.containerd.snapshotter.v1]" {
		t.Errorf("info says %s", out)
	}
	if out := d.Tare(t, "image", "inspect", "--format", "{{.GraphDriver.Name}}", "busybox"); out != driver {
		t.Errorf("the image's driver is %s", out)
	}
	d.Tare(t, "run", "-d", "--name", "one", "busybox", "sh", "-c", "echo mine > /one; chmod 4755 /one; sleep 1000")
	if out := d.Tare(t, "run", "--name", "two", "busybox", "sh", "-c", "ls /one; rm /bin/vi; mount | grep ' / '; cat /etc/hostname"); strings.Contains(out, "nosuid") || strings.Contains(out, "mine") {
		t.Errorf("the second container shows %s", out)
	}
	if out := d.Tare(t, "inspect", "--format", "{{.Driver}} {{.Storage.RootFS.Snapshot.Name}}", "one"); out != driver+" "+driver {
		t.Errorf("the container's driver is %s", out)
	}
	if out := d.Tare(t, "inspect", "--size", "--format", "{{.SizeRw}}", "one"); out != "5" {
		t.Errorf("the container has written %s bytes", out)
	}
	id := d.Tare(t, "inspect", "--format", "{{.Id}}", "one")
	own(filepath.Join(d.Dir, "data/snapshot/active", id, "fs"))

	d.Signal(t, syscall.SIGKILL)
	refuses(t, d, driver)
	d.Up(t)
	if out := d.Tare(t, "exec", "one", "cat", "/one"); out != "mine" {
		t.Errorf("after a restart of the daemon the container reads %q", out)
	}
	d.Tare(t, "stop", "-t", "0", "one")
	d.Signal(t, syscall.SIGTERM)
	d.Up(t)
	d.Tare(t, "start", "one")
	if out := d.Tare(t, "exec", "one", "stat", "-c", "%a", "/one"); out != "4755" {
		t.Errorf("after a restart of the container: %q", out)
	}
	if _, err := d.Try("run", "--rm", "--read-only", "busybox", "touch", "/x"); err == nil || !strings.Contains(err.Error(), "Read-only file system") {
		t.Errorf("a read-only container: %v", err)
	}
	d.Tare(t, "rm", "-f", "one", "two")
	d.Tare(t, append([]string{"rmi"}, strings.Fields(d.Tare(t, "images", "-q"))...)...) // the built-in one too
	for dir, want := range map[string]int{"active": 0, "new": 0, "trash": 0, "layers": 1} {
		testutil.Eventually(t, 20*time.Second, fmt.Sprintf("%s holds %d", dir, want), func() bool {
			left, err := os.ReadDir(filepath.Join(d.Dir, "data/snapshot", dir))
			return err == nil && len(left) == want
		})
	}
}

// refuses starts the daemon on the data of another driver.
func refuses(t *testing.T, d *daemon.Daemon, driver string) {
	t.Helper()
	cmd := d.Command(t, d.Program("tared"), "--storage-driver=overlay2", "--data-root", d.Dir+"/data", "--exec-root", d.Dir+"/other",
		"--config-file", d.Dir+"/daemon.json", "--bridge", d.Bridge)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "go on with --storage-driver="+driver) {
		t.Errorf("overlay on what %s made: %v\n%s", driver, err, out)
	}
}

// TestDriverOfTheFileSystem lets the daemon choose. No overlay can be mounted
// with its writable layer on another.
func TestDriverOfTheFileSystem(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	data := dataRoot(t, d)
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(d.Dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", d.Dir)
	if err := unix.Mount("overlay", data, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	d.AtEnd(func() error { return unix.Unmount(data, 0) })
	d.Up(t)
	if !strings.Contains(d.Log(), "the storage driver is vfs") {
		t.Errorf("nothing is said of the driver:\n%s", d.Log())
	}
	d.ImportBusybox(t)
	if out := d.Tare(t, "run", "--rm", "busybox", "echo", "copied"); out != "copied" {
		t.Errorf("a container says %q", out)
	}
	d.Signal(t, syscall.SIGTERM)
	d.Up(t) // it stays with what it has
	if out := d.Tare(t, "info", "--format", "{{.Driver}}"); out != "vfs" {
		t.Errorf("the driver is %s", out)
	}
}

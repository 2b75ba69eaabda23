package daemon

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
)

// finish ends the daemon with all its containers and reports what is left of
// it on the machine.
func (d *Daemon) finish(t testing.TB) {
	if d.cmd == nil && !t.Failed() {
		d.Up(t) // the test stopped it; its containers must still go
	}
	if d.cmd != nil {
		if ids, err := d.Try("ps", "-aq"); err != nil {
			t.Error(err)
		} else if ids != "" {
			if _, err := d.Try(append([]string{"rm", "-f"}, strings.Fields(ids)...)...); err != nil {
				t.Error(err)
			}
		}
		d.Signal(t, syscall.SIGTERM)
	}
	for _, f := range d.atEnd {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
	deadline := time.Now().Add(testutil.Patience(10 * time.Second))
	left := d.Left()
	for len(left) > 0 && time.Now().Before(deadline) { // a namespace dies in the kernel's own time
		time.Sleep(20 * time.Millisecond)
		left = d.Left()
	}
	for _, what := range left {
		t.Errorf("left behind: %s", what)
	}
	d.sweep()
	if t.Failed() {
		t.Logf("the daemon's log:\n%s", d.Log())
	}
	// What outlives a daemon on purpose, for the next one to find.
	run := func(args ...string) { _ = exec.Command(args[0], args[1:]...).Run() }
	run("ip", "link", "delete", d.Bridge)
	run("nft", "delete", "table", "ip", "tare-"+d.Bridge)
	for _, dir := range d.cgroups("") {
		_ = os.Remove(dir)
	}
	_ = os.RemoveAll(d.Dir)
}

// sweep ends what a failed test left running, so that it harms no other:
// processes in our cgroups, and those that mount a container's root.
func (d *Daemon) sweep() {
	for _, dir := range d.cgroups("*") { // what stands still does not die; elsewhere the files are not there
		_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	}
	for range 100 {
		found := false
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			mounts, _ := os.ReadFile("/proc/" + e.Name() + "/mountinfo")
			groups, _ := os.ReadFile("/proc/" + e.Name() + "/cgroup")
			line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			if string(line) == "tare-dns\x00"+d.Dir+"/exec\x00" || strings.Contains(string(mounts), d.Dir+"/exec/c/") || strings.Contains(string(groups), d.Cgroup+"/") {
				found = true
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if !found {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, dir := range d.cgroups("*") {
		_ = os.Remove(dir)
	}
}

// Left lists what remains of the daemon's containers: mounts, processes,
// cgroups, interfaces and files.
func (d *Daemon) Left() []string {
	var left []string
	if data, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for _, line := range strings.Split(string(data), "\n") {
			if strings.Contains(line, d.Dir) {
				left = append(left, "mount "+line)
			}
		}
	}
	left = append(left, d.processes()...)
	if _, err := os.Stat(filepath.Join(d.Dir, "exec/dns.sock")); err == nil && d.cmd == nil {
		left = append(left, "the resolver's process")
	}
	left = append(left, d.cgroups("*")...)
	if out, err := exec.Command("ip", "-o", "link", "show", "master", d.Bridge).Output(); err == nil && len(out) > 0 {
		left = append(left, "interfaces "+string(out))
	}
	for _, dir := range []string{"exec/c", "data/containers", "data/snapshot/active"} {
		entries, err := os.ReadDir(filepath.Join(d.Dir, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			left = append(left, err.Error())
		}
		for _, e := range entries {
			left = append(left, filepath.Join(d.Dir, dir, e.Name()))
		}
	}
	return left
}

// processes lists those that live in a mount namespace that holds something
// of ours, as containers and their supervising processes do.
func (d *Daemon) processes() []string {
	var list []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/mountinfo")
		if err == nil && strings.Contains(string(data), d.Dir) {
			cmdline, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			list = append(list, "process "+e.Name()+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return list
}

// cgroups lists the cgroups below the daemon's parent that match, on v1
// hierarchies and on v2.
func (d *Daemon) cgroups(match string) []string {
	var list []string
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		found, _ := filepath.Glob(filepath.Join(root, d.Cgroup, match))
		for _, f := range found {
			if info, err := os.Stat(f); err == nil && info.IsDir() {
				list = append(list, f)
			}
		}
	}
	return list
}

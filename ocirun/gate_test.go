package ocirun

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/procfs"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/ocirun/cgroup"
	"golang.org/x/sys/unix"
)

// gated skips where groups are not made beside init.
func gated(t *testing.T) *cgroup.Group {
	t.Helper()
	testutil.RequireRoot(t)
	g, err := cgroup.Draft("/" + containerID(t))
	if err != nil {
		t.Fatal(err)
	}
	if g == nil {
		t.Skip("needs version 1 of control groups")
	}
	if err := g.Delete(); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestGate: init that began without its groups is in all of them when it is
// created, with its limits, wherever the first mount that needs them stands.
func TestGate(t *testing.T) {
	clean(t)
	g := gated(t)
	for _, mounted := range []bool{true, false} {
		dir, s := bundle(t, "sleep", "60")
		if !mounted {
			for i, m := range s.Mounts {
				if m.Type == "cgroup" {
					s.Mounts = append(s.Mounts[:i:i], s.Mounts[i+1:]...)
					break
				}
			}
		}
		o := Options{Bundle: dir, Spec: s, ID: containerID(t)}
		if !canBegin(s, &o) {
			t.Fatal("not begun before the groups are made")
		}
		c, err := Create(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Pid()))
		if n, in := len(g.Members), strings.Count(string(text), ":/"+containerID(t)+"\n"); n != in {
			t.Errorf("mounted %v: in %d of %d groups:\n%s", mounted, in, n, text)
		}
		_ = c.Signal(unix.SIGKILL, false)
		_, _ = c.Wait()
		if err := c.Delete(); err != nil {
			t.Error(err)
		}
	}
}

// TestGateForeign: a group that is another's, and is met when init is at work
// already, is left alone, and what was made before it goes.
func TestGateForeign(t *testing.T) {
	clean(t)
	g := gated(t)
	dir, s := bundle(t, "sleep", "60")
	last := g.Members[0]
	for _, m := range g.Members {
		if slices.Contains(m.Controllers, "freezer") { // by which a container's processes are found to be killed
			last = m
		}
	}
	if err := os.Mkdir(last.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(last.Dir)
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	if err := os.WriteFile(last.Dir+"/cgroup.procs", []byte(strconv.Itoa(other.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	_, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
	if err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("the group of others: %v", err)
	}
	if text, _ := os.ReadFile(last.Dir + "/cgroup.procs"); strings.TrimSpace(string(text)) != strconv.Itoa(other.Process.Pid) {
		t.Errorf("the other process is no more in its group: %q", text)
	}
	for _, m := range g.Members {
		if _, err := os.Stat(m.Dir); err == nil && m.Dir != last.Dir {
			t.Errorf("%s is left", m.Dir)
		}
	}
}

// TestGateKilled: the creator is killed while init waits for its groups, of which
// one is made. Init ends by itself, and the rest can be removed. Of a creator that goes no
// further init is ended with what there is.
func TestGateKilled(t *testing.T) {
	if root := os.Getenv("TARE_TEST_GATE"); root != "" {
		dieBefore(t, root)
	}
	for _, alive := range []bool{false, true} {
		t.Run(fmt.Sprint("creator alive ", alive), func(t *testing.T) { discardAtGate(t, alive) })
	}
}

func discardAtGate(t *testing.T, alive bool) {
	clean(t)
	g := gated(t)
	root, id := t.TempDir(), containerID(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestGateKilled$")
	cmd.Env = append(os.Environ(), "TARE_TEST_GATE="+root, "TARE_TEST_GATE_ID="+id)
	stdin, _ := cmd.StdinPipe()
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "init %d", &pid)
	}
	if pid == 0 {
		t.Fatal("no init")
	}
	began, _, _ := procfs.Start(pid)
	if alive {
		defer cmd.Wait()
		defer cmd.Process.Kill()
		if err := Discard(root, id); err != nil {
			t.Error(err)
		}
	} else {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if now, state, _ := procfs.Start(pid); now != began || state == 'Z' || state == 'X' {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("init is still there")
		}
	}
	if err := Discard(root, id); err != nil {
		t.Error(err)
	}
	for _, m := range g.Members {
		if _, err := os.Stat(m.Dir); err == nil {
			t.Errorf("%s is left", m.Dir)
		}
	}
	if left, _ := os.ReadDir(root); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// dieBefore is a creator that does not come to make all groups.
func dieBefore(t *testing.T, root string) {
	dir, s := bundle(t, "sleep", "60")
	o := Options{Bundle: dir, Spec: s, ID: os.Getenv("TARE_TEST_GATE_ID"), StateDir: root}
	a, err := newAttempt(stepsOfInit, s, s.Process, o.Stdio, nil, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	c := &Container{id: o.ID, bundle: dir, pidfd: -1, sync: -1}
	c.know(s)
	if err := c.setUp(a, &o); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.group.Members[0].Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.RemoveAll(filepath.Dir(dir)) // nobody does it after
	fmt.Printf("init %d\n", a.pid)
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(1)
}

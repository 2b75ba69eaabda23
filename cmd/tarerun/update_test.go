package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/ocirun"
)

func TestUpdateAndEvents(t *testing.T) {
	b := newBench(t, "sleep", "60")
	must := func(args ...string) string {
		t.Helper()
		out, code := b.run(args...)
		if code != 0 {
			t.Fatal(args, out, code)
		}
		return out
	}
	must("run", "-d", b.id)
	must("update", b.id, "--memory", "64M", "--pids-limit", "17", "--cpu-period", "50000") // flags may follow
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
		for file, want := range map[string]string{"memory/%/memory.limit_in_bytes": "67108864", "pids/%/pids.max": "17", "cpu/%/cpu.cfs_period_us": "50000"} {
			got, _ := os.ReadFile("/sys/fs/cgroup/" + strings.Replace(file, "%", b.id, 1))
			if strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %s", file, got)
			}
		}
	}
	must("update", "--memory", "-1", b.id)
	var e struct {
		Type, ID string
		Data     struct {
			Memory struct{ Usage struct{ Usage uint64 } }
			Pids   struct{ Current, Limit uint64 }
		}
	}
	if err := json.Unmarshal([]byte(must("events", "--stats", b.id)), &e); err != nil || e.Type != "stats" || e.ID != b.id || e.Data.Pids.Limit != 17 || e.Data.Pids.Current != 1 {
		t.Errorf("got %+v, %v", e, err)
	}
	if out, code := b.run("events", "--interval", "0s", b.id); code != 1 || !strings.Contains(out, "interval must be greater than 0") {
		t.Error(out, code)
	}
	must("pause", b.id)
	if out, code := b.run("exec", b.id, "true"); code != 255 || !strings.Contains(out, "cannot exec in a paused container") {
		t.Error(out, code)
	}
	must("kill", b.id, "KILL")
	must("delete", "-f", b.id)
}

// TestEventsFollow: a shortage is told of as it comes, and the end ends it.
func TestEventsFollow(t *testing.T) {
	b := newBench(t, "sleep", "60")
	if out, code := b.run("run", "-d", b.id); code != 0 {
		t.Fatal(out)
	}
	if out, code := b.run("update", "--memory", "24M", "--memory-swap", "24M", b.id); code != 0 {
		t.Fatal(out)
	}
	cmd := exec.Command("/proc/self/exe", "--root", b.root, "events", "--interval", "50ms", b.id)
	cmd.Env = append(os.Environ(), "TARERUN_TEST_MAIN=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(testutil.Patience(20*time.Second), func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	seen := map[string]bool{}
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.ID != b.id {
			t.Errorf("%s: %v", lines.Text(), err)
		}
		if e.Type == "stats" && !seen["stats"] { // it listens
			if out, code := b.run("exec", b.id, "busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"); code != 137 {
				t.Error(out, code)
			}
		}
		if seen[e.Type] = true; e.Type == "oom" {
			b.run("kill", b.id, "KILL")
		}
	}
	if err := cmd.Wait(); err != nil || !seen["oom"] {
		t.Errorf("%v, %v", err, seen)
	}
	stuck.Stop()
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{"-1": -1, "0": 0, "50M": 50 << 20, "1g": 1 << 30, "1.5KiB": 1536, "7b": 7} {
		if n, err := parseBytes(text); err != nil || n != want {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "x", "-2", "1e30", "M", "nan", "inf"} {
		if _, err := parseBytes(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestSpecAndHelp(t *testing.T) {
	b := newBench(t)
	if out, code := b.run("spec", "-h"); code != 0 || !strings.HasPrefix(out, "NAME:\n") {
		t.Error(out, code)
	}
	if out, code := b.run("foo"); code != 1 || !strings.Contains(out, "No help topic for 'foo'") {
		t.Error(out, code)
	}
	if out, code := b.run("--root", b.bundle+"/none", "list"); code != 1 {
		t.Error(out, code)
	}
}

// TestNested: the runtime itself is root of a user namespace, as in a container.
func TestNested(t *testing.T) {
	b := newBench(t, "sh", "-c", "echo x > /dev/null && echo wrote")
	s, err := ocirun.ReadSpec(b.bundle)
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Mounts {
		if s.Mounts[i].Type == "devpts" {
			s.Mounts[i].Options = []string{"newinstance", "ptmxmode=0666"} // the group 5 is not mapped
		}
	}
	text, _ := json.Marshal(s)
	if err := os.WriteFile(b.bundle+"/config.json", text, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "--root", b.root, "run", b.id)
	cmd.Env, cmd.Dir = append(os.Environ(), "TARERUN_TEST_MAIN=1"), b.bundle
	one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: one, GidMappings: one}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "wrote\n") || !strings.Contains(string(out), "linux.resources.devices has no effect") {
		t.Errorf("%s, %v", out, err)
	}
}

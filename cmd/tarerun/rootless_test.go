package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/testutil"
)

// An ordinary user of every Debian, games, and IDs that are theirs.
const userID, groupID, firstSub = 5, 60, 300000

// ordinary is a bundle of that user, with what spec --rootless wrote.
type ordinary struct {
	*bench
	program string
	before  string // a command of root's before the user's, in a shell
}

func newOrdinary(t *testing.T, args ...string) *ordinary {
	t.Helper()
	u := &ordinary{bench: newBench(t, args...)}
	u.program = filepath.Join(u.bundle, "tarerun")
	binary, err := os.ReadFile("/proc/self/exe") // which lies where only root comes
	if err == nil {
		err = os.WriteFile(u.program, binary, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{u.bundle, u.root} {
		for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
			_ = os.Chmod(d, 0o755)
		}
		if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", userID, groupID), dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Cleanup(func() { u.as("delete", "--force", u.id) }) // before root's
	_ = os.Remove(u.bundle + "/config.json")
	u.must("spec", "--rootless")
	u.change(func(s *specs.Spec) { s.Process.Terminal, s.Root.Readonly, s.Process.Args = false, false, args })
	return u
}

// as runs tarerun as the user, who has IDs in /etc/subuid.
func (u *ordinary) as(args ...string) (string, int) {
	u.t.Helper()
	script := `echo ` + fmt.Sprintf("%d:%d:1000", userID, firstSub) + ` > sub && mount --bind sub /etc/subuid && mount --bind sub /etc/subgid && ` + u.before + `
exec setpriv --reuid ` + fmt.Sprint(userID) + ` --regid ` + fmt.Sprint(groupID) + ` --clear-groups ./tarerun --root ` + u.root + ` "$@"`
	cmd := exec.Command("unshare", append([]string{"-m", "sh", "-c", script, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), "TARERUN_TEST_MAIN=1")
	cmd.Dir = u.bundle
	out, err := os.CreateTemp(u.t.TempDir(), "out") // a pipe would be held open by what stays
	if err != nil {
		u.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	_ = cmd.Run()
	text, _ := os.ReadFile(out.Name())
	return string(text), cmd.ProcessState.ExitCode()
}

func (u *ordinary) must(args ...string) string {
	u.t.Helper()
	out, code := u.as(args...)
	if code != 0 {
		u.t.Fatalf("%v: %s", args, out)
	}
	return out
}

func (u *ordinary) refused(want string, args ...string) {
	u.t.Helper()
	if out, code := u.as(args...); code == 0 || !strings.Contains(out, want) {
		u.t.Errorf("%v: %q, code %d; want %q", args, out, code, want)
	}
}

// TestRootless: the life of an ordinary user's container, without control
// groups, where they may make none.
func TestRootless(t *testing.T) {
	u := newOrdinary(t, "sh", "-c", "id; cat /proc/self/uid_map; exit 7")
	out, code := u.as("run", u.id)
	if f := strings.Fields(out); code != 7 || strings.Join(f, " ") != fmt.Sprintf("uid=0 gid=0 0 %d 1", userID) {
		t.Errorf("%q, code %d", out, code)
	}
	u.change(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	u.must("run", "-d", u.id)
	if out := u.must("state", u.id); !strings.Contains(out, `"status": "running"`) {
		t.Error(out)
	}
	if out, code := u.as("exec", u.id, "sh", "-c", "id; exit 9"); out != "uid=0 gid=0\n" || code != 9 {
		t.Errorf("%q, code %d", out, code)
	}
	u.refused("cgroups not configured for container", "pause", u.id)
	u.refused("cgroups not configured for container", "ps", u.id)
	u.refused("container could not join or create cgroup", "update", "--pids-limit", "5", u.id)
	u.must("kill", u.id, "KILL")
	testutil.Eventually(t, 10*time.Second, "the container stops", func() bool { return strings.Contains(u.must("state", u.id), `"status": "stopped"`) })
	u.must("delete", u.id)
	u.must("create", u.id)
	u.must("start", u.id)
	u.must("delete", "--force", u.id)
	u.refused("permission denied; set XDG_RUNTIME_DIR", "--root", defaultRoot, "run", u.id)
}

// TestRootlessIDs: a range of the user's from /etc/subuid beside their own ID.
func TestRootlessIDs(t *testing.T) {
	if _, err := exec.LookPath("newuidmap"); err != nil {
		t.Skip("needs newuidmap (Debian's uidmap)")
	}
	u := newOrdinary(t, "sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map; id; : > /f")
	u.change(func(s *specs.Spec) {
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: userID, Size: 1}, {ContainerID: 1, HostID: firstSub, Size: 1000}}
		s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: groupID, Size: 1}, {ContainerID: 1, HostID: firstSub, Size: 1000}}
		s.Process.User = specs.User{UID: 11, GID: 12, AdditionalGids: []uint32{13}}
	})
	if err := os.Chmod(u.bundle+"/rootfs", 0o777); err != nil {
		t.Fatal(err)
	}
	out := u.must("run", u.id)
	want := fmt.Sprintf("0 %d 1 1 %d 1000 0 %d 1 1 %d 1000 uid=11 gid=12 groups=13", userID, firstSub, groupID, firstSub)
	if strings.Join(strings.Fields(out), " ") != want {
		t.Errorf("%q, want %q", out, want)
	}
	if out, err := exec.Command("stat", "-c", "%u:%g", u.bundle+"/rootfs/f").Output(); err != nil || string(out) != fmt.Sprintf("%d:%d\n", firstSub+10, firstSub+11) {
		t.Errorf("the file is %s: %v", out, err)
	}
	u.change(func(s *specs.Spec) { s.Linux.UIDMappings[1].HostID += 5000 }) // somebody else's
	u.refused("newuidmap", "run", u.id)
}

// TestRootlessRefused: what an ordinary user cannot have is said.
func TestRootlessRefused(t *testing.T) {
	u := newOrdinary(t, "true")
	limit := int64(5)
	for want, f := range map[string]func(*specs.Spec){
		"rootless needs no limits + no cgrouppath when no permission is granted for cgroups": func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
		},
		"rootless needs no limits + no cgrouppath": func(s *specs.Spec) { s.Linux.CgroupsPath = "/tare-tests/" + u.id },
		"rootless container requires user namespaces": func(s *specs.Spec) {
			s.Linux.Namespaces = s.Linux.Namespaces[:len(s.Linux.Namespaces)-1]
		},
		"requires at least one UID mapping": func(s *specs.Spec) { s.Linux.UIDMappings = nil },
		"cannot set any additional groups":  func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{5} },
		"cannot specify gid=5 mount option": func(s *specs.Spec) { s.Mounts[2].Options = append(s.Mounts[2].Options, "gid=5") },
	} {
		config, err := os.ReadFile(u.bundle + "/config.json")
		if err != nil {
			t.Fatal(err)
		}
		u.change(f)
		u.refused(want, "run", u.id)
		if err := os.WriteFile(u.bundle+"/config.json", config, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRootlessDelegated: groups that root has given to the user have limits and
// the freezer, for a path that is told and, on cgroup v2, for the one that is
// chosen without.
func TestRootlessDelegated(t *testing.T) {
	u := newOrdinary(t, "sleep", "1000")
	l, err := cgroupfs.Host()
	if err != nil {
		t.Fatal(err)
	}
	mounts := []string{}
	for i := range l.V1 {
		mounts = append(mounts, l.V1[i].Mount)
	}
	if l.Unified() {
		mounts = []string{l.V2.Mount}
	}
	given := "/tare-test-given-" + fmt.Sprint(os.Getpid())
	for _, m := range mounts {
		if out, err := exec.Command("sh", "-c", "mkdir -p "+m+given+"/shell && chown -R "+fmt.Sprintf("%d:%d", userID, groupID)+" "+m+given).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() {
			u.as("delete", "--force", u.id)
			for _, dir := range []string{"/shell", ""} {
				if err := os.Remove(m + given + dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
	limit := int64(33)
	u.change(func(s *specs.Spec) { s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}} })
	ways := []string{given + "/told"}
	if l.Unified() {
		u.before = "echo $$ > " + mounts[0] + given + "/shell/cgroup.procs && "
		// The root group gives its controllers to those that are below.
		_ = os.WriteFile(mounts[0]+"/cgroup.subtree_control", []byte("+pids"), 0)
		ways = append(ways, "")
	}
	for _, way := range ways {
		u.change(func(s *specs.Spec) { s.Linux.CgroupsPath = way })
		u.must("run", "-d", u.id)
		place := way
		if way == "" {
			place = given + "/" + u.id
		}
		found, _ := filepath.Glob("/sys/fs/cgroup/pids" + place + "/pids.max")
		if l.Unified() {
			found, _ = filepath.Glob(mounts[0] + place + "/pids.max")
		}
		if len(found) != 1 {
			t.Fatalf("%s is not there", place)
		}
		if b, err := os.ReadFile(found[0]); err != nil || string(b) != "33\n" {
			t.Errorf("pids.max is %q: %v", b, err)
		}
		u.must("update", "--pids-limit", "44", u.id)
		if b, err := os.ReadFile(found[0]); err != nil || string(b) != "44\n" {
			t.Errorf("pids.max is %q: %v", b, err)
		}
		u.must("pause", u.id)
		u.must("resume", u.id)
		if out := u.must("ps", "--format", "json", u.id); !strings.HasPrefix(out, "[") {
			t.Error(out)
		}
		if out := u.must("exec", u.id, "id"); out != "uid=0 gid=0\n" {
			t.Error(out)
		}
		u.must("delete", "--force", u.id)
	}
}

package ocirun

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/ocirun/cgroup"
	"golang.org/x/sys/unix"
)

func TestInnerHooks(t *testing.T) {
	clean(t)
	dir, s := shell(t, "cat /made /begun; cat /proc/mounts | grep -c /mnt")
	s.Process.Env = append(s.Process.Env, "ONE=two")
	script := func(text string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", text}}}
	}
	s.Hooks = &specs.Hooks{
		// In the new root by the host's paths, with its programs.
		CreateContainer: script(`grep -o '"status":"[a-z]*"' > made; mount --bind ` + dir + ` ./mnt`),
		StartContainer:  script(`cat | grep -o '"status":"[a-z]*"' > /begun; echo $ONE >> /begun; ls /proc/self/fd >> /begun`),
	}
	s.Hooks.CreateContainer[0].Env = os.Environ()
	out, status := run(t, dir, s)
	if want := "\"status\":\"creating\"\n\"status\":\"created\"\ntwo\n0\n1\n2\n3\n1\n"; status.Code() != 0 || out != want {
		t.Fatalf("got %q, code %d", out, status.Code())
	}
}

func TestInnerHooksFail(t *testing.T) {
	clean(t)
	second := 1
	for name, h := range map[string]*specs.Hooks{
		"createContainer hook #1: /bin/sh: exit status 3, output: bad": {CreateContainer: []specs.Hook{{Path: "/bin/true"},
			{Path: "/bin/sh", Args: []string{"sh", "-c", "echo bad; exit 3"}}}},
		"createContainer hook #0: /bin/sleep: signal: killed": {CreateContainer: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Timeout: &second}}},
		"createContainer hook #0: /no: exit status 127":       {CreateContainer: []specs.Hook{{Path: "/no"}}},
	} {
		dir, s := bundle(t, "true")
		s.Hooks = h
		begin := time.Now()
		if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), name) || time.Since(begin) > 30*time.Second {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir, s := bundle(t, "true")
	s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/busybox", Args: []string{"cat", "/nosuchfile"}}}}
	if out, status := run(t, dir, s); status.Code() != 1 || !strings.Contains(out, "nosuchfile") || !strings.Contains(out, "error running startContainer hook #0") {
		t.Errorf("got %q, code %d", out, status.Code())
	}
}

// TestStartTellsOfHook: another process starts the container.
func TestStartTellsOfHook(t *testing.T) {
	for _, program := range []string{"true", "false"} {
		dir, s := bundle(t, "true")
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/" + program}}}
		c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), StateDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); (err == nil) != (program == "true") {
			t.Errorf("%s: %v", program, err)
		}
		stop(t, c)
	}
}

// TestStartOfSleeper: init does not hear of the start.
func TestStartOfSleeper(t *testing.T) {
	defer func(old time.Duration) { startPatience = old }(startPatience)
	startPatience = 20 * time.Millisecond
	dir, s := bundle(t, "true")
	s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/true"}}}
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, c)
	if err := c.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); fault.KindOf(err) != fault.Unavailable {
		t.Error(err)
	}
	if err := c.Resume(); err != nil {
		t.Error(err)
	}
}

// TestMountTargets: links that lead to nothing, or to a place that is still to
// be made, are where images put files that the engine mounts.
func TestMountTargets(t *testing.T) {
	clean(t)
	dir, s := shell(t, "cat /run/deep/resolv.conf /away/x/y; ls -d /jump/made")
	root := filepath.Join(dir, "rootfs")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("here\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"etc/resolv.conf": "../run/deep/resolv.conf", "jump": "/../../away/x", "etc/loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	bind := func(to string) specs.Mount {
		return specs.Mount{Destination: to, Type: "bind", Source: file, Options: []string{"bind"}}
	}
	s.Mounts = append(s.Mounts, bind("/etc/resolv.conf"), bind("/jump/y"), specs.Mount{Destination: "/jump/made", Type: "tmpfs", Source: "tmpfs"})
	if out, _ := run(t, dir, s); out != "here\nhere\n/jump/made\n" {
		t.Errorf("got %q", out)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "away")); err == nil {
		t.Error("it left the root")
	}
	s.Mounts = append(s.Mounts, bind("/etc/loop"))
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "/etc/loop") {
		t.Error(err)
	}
}

func TestTmpfsOverDirectory(t *testing.T) {
	clean(t)
	dir, s := shell(t, "stat -c %a /a /b; cat /b/sub/f; readlink /b/link; stat -c %a:%u /b/sub; touch /b/new")
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"a", "b/sub"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Chmod(root+"/a", 0o710)
	_ = os.Chmod(root+"/b/sub", 0o705)
	_ = os.Chown(root+"/b/sub", 77, 77)
	_ = os.WriteFile(root+"/b/sub/f", []byte("kept\n"), 0o644)
	_ = os.Symlink("/etc/passwd", root+"/b/link")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/a", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/b", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "mode=1777"}})
	if out, status := run(t, dir, s); out != "710\n1777\nkept\n/etc/passwd\n705:77\n" || status.Code() != 0 {
		t.Errorf("got %q, code %d", out, status.Code())
	}
	if _, err := os.Stat(root + "/b/new"); err == nil {
		t.Error("it was written below")
	}
}

func TestMappedMount(t *testing.T) {
	clean(t)
	dir, s := shell(t, "stat -c %u:%g /mnt/f")
	src := t.TempDir()
	_ = os.WriteFile(src+"/f", nil, 0o644)
	_ = os.Chown(src+"/f", 5, 6)
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 100}}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: src, Options: []string{"bind"}, UIDMappings: m, GIDMappings: m})
	out, _, err := tryRun(t, dir, s)
	var fs unix.Statfs_t
	if unix.Statfs(src, &fs) == nil && fs.Type == unix.TMPFS_MAGIC && err != nil {
		t.Skip("needs a kernel that maps owners of a tmpfs, Linux 6.3:", err)
	}
	if err != nil || out != "1005:1006\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestMappedMountOfMount: the source is an earlier mount of the same container, a
// directory and a file of it, without and with a user namespace.
func TestMappedMountOfMount(t *testing.T) {
	clean(t)
	for _, user := range []bool{false, true} {
		dir, s := shell(t, "stat -c %u:%g /mnt/a/f /mnt/b/f /mnt/c")
		src := t.TempDir()
		for d := src; d != os.TempDir(); d = filepath.Dir(d) {
			_ = os.Chmod(d, 0o755)
		}
		_ = os.Mkdir(src+"/d", 0o755)
		base, want := 0, "5:6\n1005:1006\n1005:1006\n"
		if user {
			base = 100000
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
			for _, d := range []string{"rootfs", "rootfs/dev", "rootfs/proc", "rootfs/sys", "rootfs/mnt"} {
				_ = os.Chown(filepath.Join(dir, d), 100000, 100000)
			}
		}
		_ = os.WriteFile(src+"/d/f", nil, 0o644)
		_ = os.Chown(src+"/d/f", base+5, base+6)
		m := []specs.LinuxIDMapping{{ContainerID: uint32(base), HostID: uint32(base + 1000), Size: 100}}
		root := filepath.Join(dir, "rootfs")
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/mnt/a", Type: "bind", Source: src + "/d", Options: []string{"bind"}},
			specs.Mount{Destination: "/mnt/b", Type: "bind", Source: root + "/mnt/a", Options: []string{"bind"}, UIDMappings: m, GIDMappings: m},
			specs.Mount{Destination: "/mnt/c", Type: "bind", Source: root + "/mnt/a/f", Options: []string{"bind"}, UIDMappings: m, GIDMappings: m})
		out, _, err := tryRun(t, dir, s)
		var fs unix.Statfs_t
		if unix.Statfs(src, &fs) == nil && fs.Type == unix.TMPFS_MAGIC && err != nil {
			t.Skip("needs a kernel that maps owners of a tmpfs, Linux 6.3:", err)
		}
		if err != nil || out != want {
			t.Errorf("user namespace %v: got %q, %v", user, out, err)
		}
	}
}

// TestJoinUserNamespace: all namespaces of a container, among them one of each
// kind that is new, and a network namespace that the host's user namespace owns.
func TestJoinUserNamespace(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "sleep", "60")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace}, specs.LinuxNamespace{Type: specs.TimeNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
	for _, d := range []string{"rootfs", "rootfs/dev", "rootfs/proc", "rootfs/sys"} {
		_ = os.Chown(filepath.Join(dir, d), 100000, 100000)
	}
	first, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, first)
	if err := first.Start(); err != nil { // from then on it is in its time namespace
		t.Fatal(err)
	}
	testutil.Eventually(t, 10*time.Second, "the program is executed", func() bool {
		exe, err := os.Readlink("/proc/" + itoa(first.Pid()) + "/exe")
		return err == nil && strings.HasSuffix(exe, "busybox")
	})
	ns := func(kind string) string { return "/proc/" + itoa(first.Pid()) + "/ns/" + kind }
	for name, paths := range map[string]map[specs.LinuxNamespaceType]string{
		"user alone": {specs.UserNamespace: ns("user")},
		"with pid":   {specs.UserNamespace: ns("user"), specs.PIDNamespace: ns("pid"), specs.TimeNamespace: ns("time")},
		"with ipc":   {specs.UserNamespace: ns("user"), specs.IPCNamespace: ns("ipc"), specs.UTSNamespace: ns("uts"), specs.NetworkNamespace: ns("net")},
		"host's net": {specs.UserNamespace: ns("user"), specs.NetworkNamespace: "/proc/self/ns/net"},
	} {
		again := *s
		again.Process = &specs.Process{Args: []string{"sh", "-c", "cat /proc/self/uid_map; echo $$"}, Env: s.Process.Env, Cwd: "/"}
		l := *s.Linux
		again.Linux = &l
		l.UIDMappings, l.GIDMappings = nil, nil
		l.CgroupsPath = "/" + containerID(t) + "-again"
		l.Namespaces = nil
		for _, n := range s.Linux.Namespaces {
			l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: n.Type, Path: paths[n.Type]})
		}
		if name == "host's net" { // its sysfs is not for the user namespace
			again.Mounts = nil
			for _, m := range s.Mounts {
				if m.Type != "sysfs" && m.Type != "cgroup" {
					again.Mounts = append(again.Mounts, m)
				}
			}
		}
		out, status, err := tryRun(t, dir, &again)
		f := strings.Fields(out)
		if err != nil || status.Code() != 0 || len(f) != 4 || f[1] != "100000" || (f[3] == "1") != (paths[specs.PIDNamespace] == "") {
			t.Errorf("%s: %q, code %d, %v", name, out, status.Code(), err)
		}
	}
}

// TestJoinIntoNewUserNamespace: the network namespace of others.
func TestJoinIntoNewUserNamespace(t *testing.T) {
	clean(t)
	testutil.RequireRoot(t)
	dir, s := shell(t, "readlink /proc/self/ns/net; id -u")
	s.Mounts = s.Mounts[:1]
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
			s.Linux.Namespaces[i].Path = "/proc/self/ns/net"
		}
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
	for _, d := range []string{"rootfs", "rootfs/dev", "rootfs/proc", "rootfs/sys"} {
		_ = os.Chown(filepath.Join(dir, d), 100000, 100000)
	}
	own, _ := os.Readlink("/proc/self/ns/net")
	if out, _ := run(t, dir, s); out != own+"\n0\n" {
		t.Errorf("got %q", out)
	}
}

// TestDiscard: the creator died between its first step and its last.
func TestDiscard(t *testing.T) {
	clean(t)
	testutil.RequireRoot(t)
	root, id := t.TempDir(), containerID(t)
	if err := Discard(root, id); err != nil {
		t.Error("nothing there:", err)
	}
	group, err := cgroup.Create("/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Delete()
	_ = os.Mkdir(filepath.Join(root, id), 0o711)
	_ = os.Symlink("/"+id, filepath.Join(root, id, cgroupLink))
	if _, err := Load(root, id); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
	if err := Discard(root, id); err != nil {
		t.Fatal(err)
	}
	if e, _ := os.ReadDir(root); len(e) != 0 {
		t.Errorf("left %v", e)
	}
	if _, err := os.Stat(group.Members[0].Dir); err == nil {
		t.Error("the control group is left")
	}
}

package ocirun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/testutil"
	"golang.org/x/sys/unix"
)

// leftovers counts what a container could leave: descriptors, children, groups.
func leftovers(t testing.TB) (counts string, fds []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil { // not that of the reading itself
			fds = append(fds, e.Name()+" "+to)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/tare-test-*-" + itoa(os.Getpid()) + "*")
	unified, _ := filepath.Glob("/sys/fs/cgroup/tare-test-*-" + itoa(os.Getpid()) + "*")
	groups = append(groups, unified...)
	children, _ := filepath.Glob("/proc/self/task/*/children")
	n := 0
	for _, c := range children {
		b, _ := os.ReadFile(c)
		n += len(strings.Fields(string(b)))
	}
	text, _ := os.ReadFile("/proc/self/mountinfo")
	mounts := 0 // on the root, or for a test; others on the machine come and go
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[4] == "/" || strings.Contains(line, "/"+strings.SplitN(t.Name(), "/", 2)[0]) {
			mounts++
		}
	}
	return fmt.Sprintf("%d descriptors, %d groups, %d children, %d mounts", len(fds), len(groups), n, mounts), fds
}

// clean fails the test when it leaves something.
func clean(t testing.TB) {
	before, had := leftovers(t)
	t.Cleanup(func() {
		if after, has := leftovers(t); after != before {
			t.Errorf("left behind: before %s, after %s; descriptors %q and %q", before, after, had, has)
		}
	})
}

func TestUserNamespace(t *testing.T) {
	clean(t)
	dir, s := shell(t, "id -u; cat /proc/self/uid_map; echo x > /dev/null && echo null; touch /tmp/f; stat -c %u /tmp/f; true")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
	if err := os.Chown(filepath.Join(dir, "rootfs/tmp"), 100000, 100000); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"rootfs", "rootfs/dev", "rootfs/proc", "rootfs/sys"} {
		_ = os.Chown(filepath.Join(dir, d), 100000, 100000)
	}
	src := filepath.Join(dir, "secret")
	_ = os.Mkdir(src, 0o700)
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: src, Options: []string{"rbind", "ro"}})
	out, status := run(t, dir, s)
	if f := strings.Fields(out); status.Code() != 0 || strings.Join(f, " ") != "0 0 100000 65536 null 0" {
		t.Fatalf("got %q, code %d", out, status.Code())
	}
}

func TestTimeNamespace(t *testing.T) {
	clean(t)
	dir, s := shell(t, "cat /proc/uptime /proc/self/timens_offsets")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000, Nanosecs: 500000000}, "monotonic": {Secs: 1000000}}
	out, _ := run(t, dir, s)
	var up float64
	if _, err := fmt.Sscan(out, &up); err != nil || up < 1000000 || strings.Join(strings.Fields(out)[2:], " ") != "monotonic 1000000 0 boottime 1000000 500000000" {
		t.Fatalf("uptime %q", out)
	}
}

func TestUserAndCapabilities(t *testing.T) {
	clean(t)
	dir, s := shell(t, "id; grep -E 'Cap|Groups|NoNew|Seccomp:' /proc/self/status; umask; ulimit -n; pwd; echo $HOME")
	mask := uint32(0o027)
	s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7, 8}, Umask: &mask}
	s.Process.Cwd = "/tmp"
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, Effective: []string{"CAP_KILL"},
		Permitted: []string{"CAP_KILL"}, Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}}
	out, _ := run(t, dir, s)
	for _, want := range []string{"uid=1000", "gid=1000", "Groups:\t7 8", "CapInh:\t0000000000000020", "CapPrm:\t0000000000000020",
		"CapEff:\t0000000000000020", "CapBnd:\t0000000000000021", "CapAmb:\t0000000000000020", "NoNewPrivs:\t1", "0027", "1024", "/tmp", "/home/user"} {
		if !strings.Contains(out, want) && !strings.Contains(strings.ReplaceAll(out, "(user)", ""), want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

func TestSeccomp(t *testing.T) {
	for _, nnp := range []bool{true, false} {
		t.Run(fmt.Sprint("no_new_privs ", nnp), func(t *testing.T) {
			clean(t)
			dir, s := shell(t, "grep Seccomp: /proc/self/status; mkdir /tmp/d && echo made; hostname other || echo refused")
			p, err := profile.GetDefaultProfile(s)
			if err != nil {
				t.Fatal(err)
			}
			eperm := uint(unix.EACCES)
			p.Syscalls = append([]specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &eperm}}, p.Syscalls...)
			s.Linux.Seccomp, s.Process.NoNewPrivileges = p, nnp
			out, _ := run(t, dir, s)
			if !strings.Contains(out, "Seccomp:\t2") || strings.Contains(out, "made") || !strings.Contains(out, "refused") {
				t.Fatalf("got %q", out)
			}
		})
	}
}

func TestMasksAndReadonly(t *testing.T) {
	clean(t)
	dir, s := shell(t, "cat /etc/secret; ls /mnt; echo x > /tmp/f && echo wrote; echo x > /proc/sys/kernel/hostname && echo wrote; grep -c ' /mnt ' /proc/mounts; echo end")
	_ = os.WriteFile(filepath.Join(dir, "rootfs/etc/secret"), []byte("secret"), 0o644)
	_ = os.WriteFile(filepath.Join(dir, "rootfs/mnt/secret"), []byte("secret"), 0o644)
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/etc/secret", "/mnt", "/not/there", "/mnt")
	s.Root.Readonly = true
	if out, _ := run(t, dir, s); strings.Contains(out, "secret\n") || strings.Contains(out, "wrote") || !strings.HasSuffix(out, "1\nend\n") {
		t.Fatalf("got %q", out)
	}
}

// TestOneMask: masked directories are the same one, empty and read-only.
func TestOneMask(t *testing.T) {
	clean(t)
	dir, s := shell(t, "stat -c %d:%i /mnt /tmp /root; echo /tmp/*; grep -c ' ro,.* - tmpfs tmpfs ro,' /proc/self/mountinfo")
	_ = os.WriteFile(filepath.Join(dir, "rootfs/tmp/secret"), nil, 0o644)
	s.Linux.MaskedPaths = []string{"/mnt", "/etc/passwd", "/tmp", "/root"}
	out, _ := run(t, dir, s)
	if f := strings.Fields(out); len(f) != 5 || f[0] != f[1] || f[1] != f[2] || f[3] != "/tmp/*" || f[4] != "3" {
		t.Fatalf("got %q", out)
	}
}

// TestHostsNull: what a container has of the host's null device leaves its mode alone.
func TestHostsNull(t *testing.T) {
	clean(t)
	dir, s := shell(t, "chmod 667 /etc/passwd /proc/self/fd/0; stat -Lc %t:%T /etc/passwd /proc/self/fd/0")
	s.Linux.MaskedPaths = []string{"/etc/passwd"}
	t.Cleanup(func() { _ = os.Chmod(os.DevNull, 0o666) })
	if out, _ := run(t, dir, s); !strings.HasSuffix(out, "1:3\n1:3\n") {
		t.Errorf("got %q", out)
	}
	if st, err := os.Stat(os.DevNull); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("the mode is now %v, %v", st, err)
	}
	rootfs := filepath.Join(dir, "rootfs")
	if err := errors.Join(os.Mkdir(filepath.Join(rootfs, "devices"), 0o755), os.RemoveAll(filepath.Join(rootfs, "dev")), os.Symlink("devices", filepath.Join(rootfs, "dev"))); err != nil {
		t.Fatal(err)
	}
	s.Process.Args = []string{"sleep", "60"}
	c := start(t, dir, s) // with a link on the way to its own
	p := *s.Process
	p.Args = []string{"sh", "-c", "mv /dev/zero /dev/null"}
	execIn(t, c, &p)
	if _, err := c.Exec(context.Background(), ExecOptions{Process: &p}); err == nil || !strings.Contains(err.Error(), "another file is in its place") {
		t.Errorf("another device is taken for it: %v", err)
	}
}

func TestMountOptions(t *testing.T) {
	clean(t)
	dir, s := shell(t, "cat /mnt/a/b/file; echo x > /mnt/a/b/file && echo wrote; grep ' /mnt' /proc/self/mountinfo; cat /etc/new; echo x > /mnt/t/f || echo ro")
	src := filepath.Join(dir, "src")
	_ = os.Mkdir(src, 0o755)
	_ = os.WriteFile(filepath.Join(src, "file"), []byte("content\n"), 0o644)
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/mnt/a/b", Type: "none", Source: "src", Options: []string{"rbind", "ro", "nosuid", "noexec", "rprivate"}},
		specs.Mount{Destination: "/etc/new", Type: "bind", Source: filepath.Join(src, "file"), Options: []string{"bind"}},
		specs.Mount{Destination: "/mnt/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "size=1m", "noatime"}})
	out, _ := run(t, dir, s)
	if !strings.Contains(out, "/mnt/a/b ro,nosuid,noexec,relatime") || strings.Contains(out, "wrote") || strings.Count(out, "content") != 2 ||
		!strings.Contains(out, "/mnt/t ro,noatime") || !strings.Contains(out, "ro\n") {
		t.Fatalf("got %q", out)
	}
}

// A root file system whose links lead out must not lead a mount out.
func TestHostileLinks(t *testing.T) {
	clean(t)
	outside := t.TempDir()
	dir, s := shell(t, "ls /inside/there && grep -c there /proc/self/mountinfo")
	root := filepath.Join(dir, "rootfs")
	_ = os.Symlink("../../../../../../../.."+outside, filepath.Join(root, "escape"))
	_ = os.MkdirAll(filepath.Join(root, "inside"), 0o755)
	_ = os.Symlink("/inside", filepath.Join(root, "link"))
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/there", Type: "tmpfs", Source: "tmpfs"})
	if out, _ := run(t, dir, s); strings.TrimSpace(out) != "1" {
		t.Errorf("got %q", out)
	}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/escape/made", Type: "tmpfs", Source: "tmpfs"})
	if _, _, err := tryRun(t, dir, s); err != nil { // its target is made inside
		t.Error(err)
	}
	if e, _ := os.ReadDir(outside); len(e) != 0 {
		t.Error("something was made outside of the root")
	}
	_ = os.Remove(filepath.Join(root, "proc"))
	_ = os.Symlink("/tmp", filepath.Join(root, "proc"))
	s.Mounts = s.Mounts[:len(s.Mounts)-2]
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "must be mounted on ordinary directory, not on a link: /proc") {
		t.Errorf("proc on a link: %v", err)
	}
}

func TestLookUpErrors(t *testing.T) {
	clean(t)
	for _, c := range []struct{ arg, want string }{
		{"foo", `exec: "foo": executable file not found in $PATH`},
		{"/x", `exec: "/x": stat /x: no such file or directory`},
		{"/etc/passwd", `exec: "/etc/passwd": permission denied`},
		{"/etc", `exec: "/etc": is a directory`},
	} {
		dir, s := bundle(t, c.arg)
		_, _, err := tryRun(t, dir, s)
		if err == nil || err.Error() != c.want || !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", c.arg, err)
		}
	}
	dir, s := bundle(t, "true")
	s.Process.Cwd = "/etc/passwd/nowhere"
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "make the working directory") {
		t.Errorf("cwd: %v", err)
	}
}

func TestExecFormatError(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "/bin/rubbish")
	_ = os.WriteFile(filepath.Join(dir, "rootfs/bin/rubbish"), []byte{1, 2, 3}, 0o755)
	if out, status := run(t, dir, s); out != "exec /bin/rubbish: exec format error\n" || status.Code() != 255 {
		t.Fatalf("got %q, code %d", out, status.Code())
	}
}

func TestLimits(t *testing.T) {
	clean(t)
	files, want, group := "memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.shares", "67108864\n20\n512\n", ":memory:/\n"
	if unified, _ := cgroupfs.Unified(); unified {
		files, want, group = "memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.weight", "67108864\n20\n59\n", "0::/\n"
	}
	dir, s := shell(t, "cat /sys/fs/cgroup/"+files+"; cat /proc/self/cgroup; dd if=/dev/zero of=/dev/null count=1 2>/dev/null && echo zero; echo x > /dev/kmsg || echo denied")
	limit, pids, shares := int64(64<<20), int64(20), uint64(512)
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	s.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares}
	out, _ := run(t, dir, s)
	if !strings.HasPrefix(out, want) || !strings.Contains(out, group) || !strings.Contains(out, "zero\n") {
		t.Fatalf("got %q", out)
	}
}

func TestOOM(t *testing.T) {
	clean(t)
	dir, s := shell(t, "dd if=/dev/zero of=/dev/shm/f bs=1M count=60 2>/dev/null; exec dd if=/dev/zero of=/dev/null bs=100M count=1")
	limit := int64(16 << 20)
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if !c.OOMKilled() {
		t.Error("not told as killed for want of memory")
	}
}

// start makes a running container that sleeps.
func start(t *testing.T, dir string, s *specs.Spec) *Container {
	t.Helper()
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Signal(unix.SIGKILL, false)
		_, _ = c.Wait()
		if err := c.Delete(); err != nil {
			t.Error(err)
		}
	})
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 5*time.Second, "the program runs", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Pid()))
		return strings.HasPrefix(string(b), s.Process.Args[0])
	})
	return c
}

func execOutput(t *testing.T, c *Container, p *specs.Process) (string, ExitStatus) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	proc, err := c.Exec(context.Background(), ExecOptions{Process: p, Stdio: [3]*os.File{nil, w, w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(r)
	status, err := proc.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return string(out), status
}

func TestExec(t *testing.T) {
	for _, user := range []bool{false, true} {
		t.Run(fmt.Sprint("user namespace ", user), func(t *testing.T) {
			clean(t)
			dir, s := bundle(t, "sleep", "1000")
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000}}
			if user {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
				s.Linux.GIDMappings = s.Linux.UIDMappings
				for _, d := range []string{"rootfs", "rootfs/dev", "rootfs/proc", "rootfs/sys"} {
					_ = os.Chown(filepath.Join(dir, d), 100000, 100000)
				}
			}
			s.Hostname = "inside"
			group := ":memory:/\n"
			if unified, _ := cgroupfs.Unified(); unified {
				group = "0::/\n"
			}
			c := start(t, dir, s)
			p := *s.Process
			p.Args = []string{"sh", "-c", "hostname; id -u; cat /proc/1/comm /proc/uptime; grep -e memory -e ^0 /proc/self/cgroup; echo fds $(ls /proc/self/fd); exit 7"}
			out, status := execOutput(t, c, &p)
			if !strings.HasPrefix(out, "inside\n0\nsleep\n") || status.Code() != 7 || !strings.Contains(out, group) {
				t.Errorf("got %q, code %d", out, status.Code())
			}
			var uptime float64
			if fields := strings.Fields(out); len(fields) > 3 {
				uptime, _ = strconv.ParseFloat(fields[3], 64)
			}
			if uptime < 1000000 {
				t.Errorf("not in the time namespace: up for %v s", uptime)
			}
			if !strings.Contains(out, "fds 0 1 2 3\n") {
				t.Errorf("descriptors: %q", out)
			}
			p.Args = []string{"nothing"}
			if _, err := c.Exec(context.Background(), ExecOptions{Process: &p}); err == nil || err.Error() != `exec: "nothing": executable file not found in $PATH` {
				t.Errorf("missing program: %v", err)
			}
		})
	}
}

// master receives a pty from a console socket.
func master(t *testing.T, socket *os.File) *os.File {
	t.Helper()
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), make([]byte, 64), control, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(m) != 1 {
		t.Fatal("no control message", err)
	}
	fds, err := unix.ParseUnixRights(&m[0])
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "pty")
}

func TestTerminal(t *testing.T) {
	clean(t)
	dir, s := shell(t, "tty; stty size; test -c /dev/console && echo console; echo to-tty > /dev/tty")
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	here, there := os.NewFile(uintptr(pair[0]), ""), os.NewFile(uintptr(pair[1]), "")
	defer here.Close()
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), Console: there})
	there.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	m := master(t, here)
	defer m.Close()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(m)
	if _, err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := strings.ReplaceAll(string(out), "\r", ""); got != "/dev/pts/0\n33 77\nconsole\nto-tty\n" {
		t.Fatalf("got %q", got)
	}
}

func TestExtraFiles(t *testing.T) {
	clean(t)
	dir, s := shell(t, "echo three >&3; echo four >&4; ls /proc/self/fd | grep -c .")
	var files []*os.File
	for i := range 2 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint("out", i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append([]*os.File{f}, files...) // the order makes their numbers cross
	}
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), ExtraFiles: files})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(filepath.Join(dir, "out1"))
	b, _ := os.ReadFile(filepath.Join(dir, "out0"))
	if string(a) != "three\n" || string(b) != "four\n" {
		t.Fatalf("got %q and %q", a, b)
	}
}

func TestRefusals(t *testing.T) {
	clean(t)
	for name, change := range map[string]func(*specs.Spec){
		"process.scheduler":  func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{} },
		"process.ioPriority": func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "fast"} },
		"linux.personality":  func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "SVR4"} },
		"requires 0 nodes": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_DEFAULT", Nodes: "0-7"}
		},
		"selinux is disabled or not supported: process.selinuxLabel": func(s *specs.Spec) { s.Process.SelinuxLabel = "x" },
		"selinux is disabled or not supported: linux.mountLabel":     func(s *specs.Spec) { s.Linux.MountLabel = "x" },
		"apparmor failed to apply profile":                           func(s *specs.Spec) { s.Process.ApparmorProfile = "x" },
		"Intel RDT is not enabled":                                   func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} },
		"tmpcopyup": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "proc", Options: []string{"tmpcopyup"}})
		},
		"idmap": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/tmp", Options: []string{"bind", "idmap"}})
		},
		"cannot be mounted because it is inside /proc": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc/sys", Type: "tmpfs"})
		},
		"cannot be mounted because it is not of type proc": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc", Type: "bind", Source: "/tmp"})
		},
		"linux.personality.flags": func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: "LINUX", Flags: []specs.LinuxPersonalityFlag{"X"}}
		},
		"and something else is there": func(s *specs.Spec) {
			_ = os.Symlink("elsewhere", filepath.Join(s.Root.Path, "../link"))
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/passwd", Type: "bind", Source: "link", Options: []string{"bind", "copy-symlink"}})
		},
		"kernel.panic":        func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} },
		"kernel.hostname":     func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.hostname": "x"} },
		"net/../kernel/panic": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/panic": "1"} },
		"RLIMIT_NOFILE": func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1 << 40, Soft: 1}}
		},
		"process.args": func(s *specs.Spec) { s.Process.Args = nil },
		"/no/such/place": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/no/such/place"})
		},
	} {
		dir, s := bundle(t, "true")
		change(s)
		if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSysctl(t *testing.T) {
	clean(t)
	dir, s := shell(t, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni")
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shmmni": "4000"}
	if out, _ := run(t, dir, s); out != "0\n4000\n" {
		t.Fatalf("got %q", out)
	}
}

func TestHooks(t *testing.T) {
	clean(t)
	dir, s := shell(t, "true")
	out := filepath.Join(dir, "hooks")
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo " + name + " $(grep -o '\"status\":\"[a-z]*\"') >> " + out}}}
	}
	s.Hooks = &specs.Hooks{Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), Poststart: hook("poststart"), Poststop: hook("poststop")}
	run(t, dir, s)
	b, _ := os.ReadFile(out)
	want := "prestart \"status\":\"creating\"\ncreateRuntime \"status\":\"creating\"\npoststart \"status\":\"running\"\npoststop \"status\":\"stopped\"\n"
	if string(b) != want {
		t.Fatalf("got %s", b)
	}
	seconds := 1
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &seconds}}}
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "longer than its 1 s") {
		t.Fatal(err)
	}
}

func TestState(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "sleep", "1000")
	states := t.TempDir()
	s.Annotations = map[string]string{"org.example.a": "b"}
	b := []byte(`{"no longer":"read"}`)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), StateDir: states})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), StateDir: states}); !errors.Is(err, fault.Conflict) {
		t.Errorf("the same name again: %v", err)
	}
	l, err := Load(states, c.id)
	if err != nil {
		t.Fatal(err)
	}
	if st := l.State(); st.Status != specs.StateCreated || st.Pid != c.Pid() || st.Annotations["org.example.a"] != "b" {
		t.Errorf("state %+v", st)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 5*time.Second, "sleep runs", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", c.Pid()))
		return string(b) == "sleep\n"
	})
	if err := l.Start(); !errors.Is(err, fault.Conflict) {
		t.Errorf("started twice: %v", err)
	}
	if err := l.Pause(); err != nil || l.State().Status != "paused" {
		t.Errorf("pause: %v %v", err, l.State().Status)
	}
	if err := l.Resume(); err != nil || l.State().Status != specs.StateRunning {
		t.Errorf("resume: %v %v", err, l.State().Status)
	}
	if err := l.Signal(unix.SIGKILL, true); err != nil {
		t.Error(err)
	}
	if _, err := c.Wait(); err != nil {
		t.Error(err)
	}
	if l.State().Status != specs.StateStopped {
		t.Errorf("state %v", l.State().Status)
	}
	if err := l.Delete(); err != nil {
		t.Error(err)
	}
	if _, err := Load(states, c.id); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestParallel(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "true")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: fmt.Sprint(containerID(t), "-", i)})
			if err != nil {
				t.Error(err)
				return
			}
			if err := c.Start(); err != nil {
				t.Error(err)
			}
			if status, err := c.Wait(); err != nil || status.Code() != 0 {
				t.Error(status, err)
			}
			if err := c.Delete(); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
}

// An abandoned container ends when its creator does not start it.
func TestNeverStarted(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "true")
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(unix.SIGKILL, false); err != nil {
		t.Error(err)
	}
	if st, err := c.Wait(); err != nil || st.Code() != 137 {
		t.Error(st, err)
	}
	if err := c.Delete(); err != nil {
		t.Error(err)
	}
}

// TestCreationEnds: nobody waits any more for a hook that hangs.
func TestCreationEnds(t *testing.T) {
	clean(t)
	sleep := []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "60"}}}
	for _, h := range []*specs.Hooks{{Prestart: sleep}, {CreateContainer: sleep}} {
		dir, s := bundle(t, "true")
		s.Hooks = h
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		begin := time.Now()
		if _, err := Create(ctx, Options{Bundle: dir, Spec: s, ID: containerID(t)}); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 30*time.Second {
			t.Error(err)
		}
		cancel()
	}
}

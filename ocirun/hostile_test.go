package ocirun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// What an image, a bundle or a container tries against the runtime itself.

// hostileProgram is a copy of this test's program in a root file system: an init
// that hunts for the runtime's processes, see hunt.
const hostileProgram = "/hunter"

// hunt looks at every process that comes into its pid namespace for what leads
// out of the container, and tells what it finds, until there is a file /tmp/stop.
func hunt() {
	told := map[string]bool{}
	fmt.Println("hunting")
	for {
		if _, err := os.Stat("/tmp/stop"); err == nil {
			return
		}
		pids, _ := os.ReadDir("/proc")
		for _, p := range pids {
			if p.Name() == "1" || p.Name()[0] < '0' || p.Name()[0] > '9' {
				continue
			}
			// Whoever may read this link may read memory and descriptors, and open the program.
			exe, err := os.Readlink("/proc/" + p.Name() + "/exe")
			if err == nil && exe != "/bin/busybox" && !told[exe] {
				told[exe] = true
				fmt.Println("caught", exe)
			}
		}
	}
}

// TestHunted: a container whose init hunts for processes that enter it catches
// none before it has executed its program, in a user namespace of its own neither.
func TestHunted(t *testing.T) {
	for _, user := range []bool{false, true} {
		t.Run(fmt.Sprint("user namespace ", user), func(t *testing.T) {
			clean(t)
			dir, s := bundle(t, hostileProgram)
			root := filepath.Join(dir, "rootfs")
			program, err := os.ReadFile("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, hostileProgram), program, 0o755); err != nil {
				t.Fatal(err)
			}
			s.Process.Env = append(s.Process.Env, "TARE_TEST_HUNT=1")
			if user {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
				s.Linux.GIDMappings = s.Linux.UIDMappings
				all := Capabilities()
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
				for _, d := range []string{"", "dev", "proc", "sys", "tmp"} {
					_ = os.Chown(filepath.Join(root, d), 100000, 100000)
				}
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), Stdio: [3]*os.File{nil, w, w}})
			w.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer stop(t, c)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			begun := make([]byte, len("hunting\n"))
			if _, err := io.ReadFull(r, begun); err != nil {
				t.Fatal(err)
			}
			p := *s.Process
			p.Args = []string{"true"}
			for range 100 {
				e, err := c.Exec(context.Background(), ExecOptions{Process: &p})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := e.Wait(); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(root, "tmp/stop"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			var caught bytes.Buffer
			_, _ = io.Copy(&caught, r)
			if caught.Len() > 0 {
				t.Errorf("%s", caught.String())
			}
		})
	}
}

// TestDirectoryOfHost: a working directory, or a program, is no path through a
// descriptor that the runtime or its caller left open.
func TestDirectoryOfHost(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "/bin/true")
	outside := t.TempDir()
	host, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	const breakout, noLink = "possible container breakout detected", "too many levels of symbolic links"
	try := func() error {
		c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), ExtraFiles: []*os.File{host}})
		if err == nil {
			stop(t, c)
		}
		return err
	}
	for _, s.Process.Cwd = range []string{"/proc/self/fd/3", "/proc/self/fd/3/etc/.."} {
		if err := try(); err == nil || !strings.Contains(err.Error(), noLink) {
			t.Errorf("%s: %v", s.Process.Cwd, err)
		}
	}
	s.Process.Cwd, s.Process.Args = "/", []string{"sleep", "60"}
	c := start(t, dir, s)
	p := *s.Process
	p.Cwd, p.Args = "/proc/self/fd/3", []string{"true"}
	e, err := c.Exec(context.Background(), ExecOptions{Process: &p, ExtraFiles: []*os.File{host}})
	if err == nil {
		_, _ = e.Wait()
	}
	if err == nil || !strings.Contains(err.Error(), breakout) {
		t.Errorf("exec: %v", err)
	}
	long := strings.Repeat("/"+strings.Repeat("d", 250), 5)
	for _, at := range []string{outside, filepath.Join(dir, "rootfs")} {
		if err := os.MkdirAll(at+long, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(outside, "gone"), 0o755), os.Symlink("/proc/self/fd/3"+outside+long, filepath.Join(dir, "rootfs/tmp/long"))); err != nil {
		t.Fatal(err)
	}
	gone, err := os.Open(filepath.Join(outside, "gone"))
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	if err := os.Remove(gone.Name()); err != nil {
		t.Fatal(err)
	}
	for _, p.Cwd = range []string{"/proc/self/fd/3" + outside + long, "/tmp/long", "/proc/self/fd/4"} {
		e, err := c.Exec(context.Background(), ExecOptions{Process: &p, ExtraFiles: []*os.File{host, gone}})
		if err == nil {
			_, _ = e.Wait()
		}
		if err == nil || !strings.Contains(err.Error(), breakout) {
			t.Errorf("exec in %.40s: %v", p.Cwd, err)
		}
	}
	for _, p.Cwd = range []string{"/proc/self/cwd", long} {
		if _, code := execIn(t, c, &p); code != 0 {
			t.Errorf("%.40s: code %d", p.Cwd, code)
		}
	}
}

// TestNothingInherited: descriptors that whoever links this package holds, closed
// on execution or not, are no container's.
func TestNothingInherited(t *testing.T) {
	clean(t)
	const list = "ls /proc/self/fd"
	dir, s := shell(t, list+"; while ! test -e /tmp/over; do sleep 0.02; done")
	for _, at := range []int{3, 60, 900} {
		if _, err := unix.FcntlInt(uintptr(at), unix.F_GETFD, 0); err == nil {
			continue // the test's own
		}
		if err := unix.Dup2(1, at); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(at)
	}
	_ = os.WriteFile(filepath.Join(dir, "rootfs/tmp/over"), nil, 0o644)
	if out, _ := run(t, dir, s); strings.Join(strings.Fields(out), " ") != "0 1 2 3" { // the last is the list's own
		t.Errorf("init has %q", out)
	}
	_ = os.Remove(filepath.Join(dir, "rootfs/tmp/over"))
	c := start(t, dir, s)
	p := *s.Process
	p.Args = []string{"sh", "-c", list}
	if out, _ := execIn(t, c, &p); strings.Join(strings.Fields(out), " ") != "0 1 2 3" {
		t.Errorf("a further process has %q", out)
	}
}

// TestVolumesOverProc: no link of the image leads a mount to /proc, whose files
// this runtime and programs trust.
func TestVolumesOverProc(t *testing.T) {
	clean(t)
	dir, s := shell(t, "true")
	root := filepath.Join(dir, "rootfs")
	for link, target := range map[string]string{"link": "proc", "mnt/up": "../../../proc", "self": "/proc/self/root/proc"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	with := s.Mounts
	for _, place := range []string{"/link", "/link/sys", "/mnt/up/self/attr", "/self/sysrq-trigger"} {
		for _, kind := range []specs.Mount{{Type: "tmpfs", Source: "tmpfs"}, {Type: "bind", Source: t.TempDir(), Options: []string{"bind"}}} {
			kind.Destination = place
			s.Mounts = append(with[:len(with):len(with)], kind)
			if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "inside /proc") && !strings.Contains(err.Error(), "not a directory") &&
				!strings.Contains(err.Error(), "too many levels of symbolic links") {
				t.Errorf("%s at %s: %v", kind.Type, place, err)
			}
		}
	}
	volume := t.TempDir()
	if err := os.Symlink("/proc", filepath.Join(volume, "link")); err != nil {
		t.Fatal(err)
	}
	s.Mounts = append(with[:len(with):len(with)], specs.Mount{Destination: "/dev/volume", Type: "bind", Source: volume, Options: []string{"bind"}},
		specs.Mount{Destination: "/dev/volume/link/sys", Type: "tmpfs", Source: "tmpfs"})
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "inside /proc") {
		t.Errorf("by a link of a volume: %v", err)
	}
	s.Mounts = slices.DeleteFunc(slices.Clone(with), func(m specs.Mount) bool { return m.Type == "cgroup" }) // for which init would enter its groups first
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/sys", Type: "tmpfs", Source: "tmpfs"})
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "inside /proc") {
		t.Errorf("without control groups: %v", err)
	}
	s.Mounts = append(with[:len(with):len(with)], specs.Mount{Destination: "/mnt/t", Type: "tmpfs", Source: "tmpfs"})
	if _, _, err := tryRun(t, dir, s); err != nil {
		t.Error(err)
	}
}

// devOfImage takes the /dev that is the container's own, and what is in it, out of a
// specification, and links files there.
func devOfImage(t *testing.T, dir string, s *specs.Spec, links map[string]string, keep string) {
	t.Helper()
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev") && m.Destination != keep })
	for name, target := range links {
		name = filepath.Join(dir, "rootfs/dev", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.Symlink(target, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMaskByImagesNull: a path is masked by the host's null device, whatever the
// image calls /dev/null, and no stream of the container is that.
func TestMaskByImagesNull(t *testing.T) {
	clean(t)
	dir, s := shell(t, "cat /etc/passwd; stat -c %t:%T /etc/passwd")
	devOfImage(t, dir, s, map[string]string{"null": "/etc/secret"}, "")
	if err := os.WriteFile(filepath.Join(dir, "rootfs/etc/secret"), []byte("secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Linux.MaskedPaths = []string{"/etc/passwd"}
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "another file is in its place") {
		t.Errorf("as a stream: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), Stdio: [3]*os.File{w, w, w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if out, _ := io.ReadAll(r); string(out) != "1:3\n" {
		t.Errorf("got %q", out)
	}
}

// TestTerminalOfImage: the terminal is one of the container's devpts and lies below
// its root, wherever links of the image's /dev lead.
func TestTerminalOfImage(t *testing.T) {
	clean(t)
	outside := t.TempDir()
	for keep, want := range map[string]string{"": "make the terminal", "/dev/pts": ""} {
		dir, s := shell(t, "tty")
		s.Process.Terminal = true
		links := map[string]string{"console": "../../../../../../.." + outside + "/console"}
		if keep == "" {
			links["pts/ptmx"] = "/etc/passwd"
		}
		devOfImage(t, dir, s, links, keep)
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		here, there := os.NewFile(uintptr(pair[0]), ""), os.NewFile(uintptr(pair[1]), "")
		c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), Console: there})
		if err == nil {
			stop(t, c)
		}
		here.Close()
		there.Close()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", keep, err)
		}
		if made, _ := os.ReadDir(outside); len(made) > 0 {
			t.Errorf("%q: %v was made outside", keep, made)
		}
		if _, missing := os.Stat(filepath.Join(dir, "rootfs", outside, "console")); want == "" && missing != nil {
			t.Error("the terminal is not below the root:", missing)
		}
	}
}

// TestKernelsFilesAlone: what is written to the kernel is a file of the kernel's. No
// mount leads elsewhere, so one that init finds is put there before: a /proc without proc.
func TestKernelsFilesAlone(t *testing.T) {
	clean(t)
	dir, s := shell(t, "true")
	if err := os.MkdirAll(filepath.Join(dir, "rootfs/proc/sys/kernel"), 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "rootfs/proc/sys/kernel/shmmni")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Mounts = s.Mounts[1:]
	s.Linux.Sysctl = map[string]string{"kernel.shmmni": "4000"}
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "not one of a proc file system") {
		t.Error(err)
	}
	if b, err := os.ReadFile(name); err != nil || len(b) != 0 {
		t.Errorf("%q was written, %v", b, err)
	}
}

// TestHomeOfDevice: to open a device is to use it, and an image may call one
// /etc/passwd.
func TestHomeOfDevice(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(root, "etc/passwd")
	if err := unix.Mkfifo(name, 0o644); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, name, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	if home := readHome(root, 0); home != "/" {
		t.Errorf("got %q", home)
	}
	if n, err := unix.Read(watch, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("it was opened: %d bytes, %v", n, err)
	}
	_ = os.Remove(name)
	if err := os.WriteFile(name, []byte("root:x:0:0::/home/root:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if home := readHome(root, 0); home != "/home/root" {
		t.Errorf("got %q", home)
	}
}

// TestHostileNames: a volume's place, which is an image's word, and a directory
// that a container renames give CRIU no name with a file of the host in it.
func TestHostileNames(t *testing.T) {
	c := &Container{id: "box", pid: os.Getpid(), spec: &specs.Spec{Root: &specs.Root{Path: "/"}, Linux: &specs.Linux{},
		Mounts: []specs.Mount{{Destination: "/x]:/etc", Type: "bind", Source: "/usr", Options: []string{"bind"}}}}}
	const words = "invalid external mount destination"
	if _, err := c.outerSources(); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), words) {
		t.Errorf("restoration: %v", err)
	}
	if _, err := c.outerMounts([]mountLine{{point: "/", device: "1:1"}, {point: "/b/data]:/name", device: "1:2", fstype: "ext4"}}); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), words) {
		t.Errorf("checkpoint: %v", err)
	}
	empty := ""
	if _, err := checkNames([]*rpc.ExtMountMap{{Key: &empty, Val: &empty}}); err == nil {
		t.Error("a mount without a name, which has CRIU look for itself, passes")
	}
	c.spec.Mounts[0].Destination = "/x]y"
	if _, err := c.outerSources(); err != nil {
		t.Error(err)
	}
}

// TestNothingToAttack: what containers have been broken out by is not there, or
// not to be written: the release agent of control groups, the kernel's parameters, others' keys.
func TestNothingToAttack(t *testing.T) {
	clean(t)
	dir, s := shell(t, `for f in /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent; do test -e $f && echo $f; done
for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/made 2>/dev/null && echo made $d/made; done
for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger /sys/kernel/uevent_helper; do (echo x > $f) 2>/dev/null && echo wrote $f; done
mount -t cgroup -o memory none /mnt 2>/dev/null && echo mounted
mount -t tmpfs none /mnt 2>/dev/null && echo mounted
cat /proc/keys /proc/kcore /proc/timer_list 2>/dev/null; echo end`)
	if out, _ := run(t, dir, s); out != "end\n" {
		t.Errorf("got %q", out)
	}
}

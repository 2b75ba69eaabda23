package ocirun

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/internal/testutil"
	"golang.org/x/sys/unix"
)

// withMounts changes the mount namespace that a specification names: "" leaves
// it out.
func withMounts(s *specs.Spec, path string) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	if path != "" {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.MountNamespace, Path: path})
	}
}

// mountsIn counts the mounts of a namespace at or below a directory.
func mountsIn(pid int, dir string) (n int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			n++
		}
	}
	return n
}

// TestSharedMounts: the container's mounts are those of a namespace with others
// in it, the runtime's or one that a path names, and are gone with the container.
func TestSharedMounts(t *testing.T) {
	testutil.RequireRoot(t)
	clean(t)
	holder := exec.Command("sleep", "60")
	holder.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	const script = "ls -d /bin /home; echo x > /new || echo read-only; readlink /proc/self/root; ls /proc/1/ >/dev/null && cat /mnt/of"
	for _, path := range []string{"", fmt.Sprintf("/proc/%d/ns/mnt", holder.Process.Pid)} {
		dir, s := bundle(t, "sleep", "60")
		withMounts(s, path)
		root, seen := filepath.Join(dir, "rootfs"), os.Getpid()
		if path != "" {
			seen = holder.Process.Pid
		}
		_ = os.WriteFile(filepath.Join(dir, "of"), []byte("bound\n"), 0o644)
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt/of", Type: "bind", Source: filepath.Join(dir, "of"), Options: []string{"bind"}})
		s.Root.Readonly = true
		c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
		if err != nil {
			t.Fatal(path, err)
		}
		if err := c.Start(); err != nil {
			t.Error(err)
		}
		own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", seen))
		if its, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", c.Pid())); its != own {
			t.Errorf("%q: init is in %s, not %s", path, its, own)
		}
		if n := mountsIn(seen, root); n < 8 {
			t.Errorf("%q: %d mounts below the root", path, n)
		}
		if n := mountsIn(os.Getpid(), root); path != "" && n > 0 {
			t.Errorf("%d mounts in the runtime's namespace", n)
		}
		p := *s.Process
		p.Args = []string{"sh", "-c", script}
		if out, _ := execIn(t, c, &p); !strings.HasPrefix(out, "ls: /home: No such file or directory\n/bin\n") && !strings.HasPrefix(out, "/bin\n") ||
			!strings.Contains(out, "read-only\n/\nbound\n") {
			t.Errorf("%q: exec: %s", path, out)
		}
		stop(t, c)
		if n := mountsIn(seen, root); n != 0 {
			t.Errorf("%q: %d mounts left", path, n)
		}
	}
}

// TestSharedMountsFail: nothing stays of a container that fails after its root
// is mounted, and what was mounted there before stays.
func TestSharedMountsFail(t *testing.T) {
	dir, s := bundle(t, "no-such-program")
	clean(t)
	withMounts(s, "")
	root := filepath.Join(dir, "rootfs")
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	for range 2 {
		if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "executable file not found") {
			t.Error(err)
		}
		if n := mountsIn(os.Getpid(), root); n != 1 {
			t.Errorf("%d mounts at the root", n)
		}
	}
}

func TestSharedMountsRefused(t *testing.T) {
	for want, change := range map[string]func(*specs.Spec){
		"root.path / needs a new mount namespace":                           func(s *specs.Spec) { s.Root.Path = "/" },
		"linux.rootfsPropagation needs":                                     func(s *specs.Spec) { s.Linux.RootfsPropagation = "rslave" },
		"unable to restrict sys entries without a private MNT namespace":    func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/proc/kcore"} },
		"unable to restrict sys entries without a private MNT namespace: l": func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/proc/sys"} },
	} {
		s := Default("/rootfs", "sh")
		withMounts(s, "")
		change(s)
		if err := check(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

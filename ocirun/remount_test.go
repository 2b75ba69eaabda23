package ocirun

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestRemount: what an earlier mount made is changed, at one place or as a whole.
func TestRemount(t *testing.T) {
	clean(t)
	dir, s := shell(t, "grep -E ' (/mnt|/tmp|/dev) ' /proc/self/mountinfo; echo x > /mnt/f; ls /tmp/made; test -c /dev/null && echo device")
	src := filepath.Join(dir, "src")
	_ = os.Mkdir(src, 0o755)
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/mnt", Type: "bind", Source: src, Options: []string{"bind"}},
		specs.Mount{Destination: "/mnt", Type: "bind", Source: src, Options: []string{"bind", "remount", "ro", "noexec"}},
		specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}},
		specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"remount", "ro", "size=2m", "rnodev", "rslave"}},
		specs.Mount{Destination: "/tmp/made", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"remount", "ro", "nosuid"}})
	out, _ := run(t, dir, s)
	for _, want := range []string{"/mnt ro,noexec", "/tmp ro,nodev", "size=2048k", "/dev ro,nosuid", "device\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if _, err := os.Stat(filepath.Join(src, "f")); err == nil {
		t.Error("written through a read-only mount")
	}
}

// TestCopySymlink: a link stays one, also where it is there already; what is no
// link is mounted.
func TestCopySymlink(t *testing.T) {
	clean(t)
	dir, s := shell(t, "readlink /a/b/link; readlink /etc/link; cat /mnt/file")
	_ = os.Symlink("/no/such/place", filepath.Join(dir, "link"))
	_ = os.Symlink("/no/such/place", filepath.Join(dir, "rootfs/etc/link"))
	_ = os.WriteFile(filepath.Join(dir, "file"), []byte("content\n"), 0o644)
	for _, m := range [][2]string{{"link", "/a/b/link"}, {"link", "/etc/link"}, {"file", "/mnt/file"}} {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: m[1], Type: "bind", Source: m[0], Options: []string{"bind", "copy-symlink"}})
	}
	if out, _ := run(t, dir, s); out != "/no/such/place\n/no/such/place\ncontent\n" {
		t.Errorf("got %q", out)
	}
}

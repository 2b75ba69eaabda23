package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/registry"
)

// TestReadOnlyDisk makes the daemon's disk read-only, as a kernel does that no
// longer trusts it: what only reads goes on, all else is refused in one sentence
// and leaves nothing, and works when the disk can be written again.
func TestReadOnlyDisk(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	data := filepath.Join(d.Dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", data, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	d.AtEnd(func() error { return unix.Unmount(data, unix.MNT_DETACH) })
	d.Up(t)
	d.ImportBusybox(t)
	reg := registry.Start(t, registry.Options{})
	here, there := reg.Host+"/b:1", reg.Host+"/c:1"
	d.Tare(t, "import", daemon.Busybox(t), there)
	d.Tare(t, "push", there)
	d.Tare(t, "rmi", there)
	d.Tare(t, "tag", "busybox", here)
	d.Tare(t, "push", here)
	d.Tare(t, "create", "--name", "made", "busybox", "echo", "made")
	saved := filepath.Join(d.Dir, "saved.tar")
	d.Tare(t, "save", "-o", saved, "busybox")

	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", data, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	reads := [][]string{{"images"}, {"inspect", "busybox"}, {"history", "busybox"}, {"ps", "-a"}, {"logs", "made"}, {"diff", "made"}, {"system", "df"},
		{"save", "-o", d.Dir + "/again.tar", "busybox"}, {"export", "-o", d.Dir + "/made.tar", "made"}, {"push", here}, {"pull", here}}
	writes := [][]string{{"tag", "busybox", "b:2"}, {"load", "-i", saved}, {"import", daemon.Busybox(t), "c"}, {"commit", "made", "d"}, {"pull", there},
		{"create", "--name", "new", "busybox"}, {"start", "made"}, {"rm", "-f", "made"}, {"rmi", here}, {"image", "prune", "-af"}}
	before := tree(t, data)
	remount(unix.MS_RDONLY)
	for _, argv := range reads {
		d.Tare(t, argv...)
	}
	for _, argv := range writes {
		_, err := d.Try(argv...)
		if err == nil || strings.Count(err.Error(), "read-only file system") != 1 {
			t.Errorf("on a read-only disk: %v", err)
		}
	}
	if after := tree(t, data); !slices.Equal(before, after) {
		t.Errorf("the data was\n%s\nand is\n%s", before, after)
	}
	d.Signal(t, syscall.SIGKILL)
	old := d.Log()
	d.Begin(t)
	d.Signal(t, 0) // ends by itself
	const refusal = "is on a read-only file system: mount it for writing, or choose another directory by --data-root\n"
	if said := strings.TrimPrefix(d.Log(), old); strings.Count(said, "\n") != 1 || !strings.HasSuffix(said, refusal) {
		t.Errorf("a daemon on a read-only disk says %s", said)
	}
	remount(0)
	d.Up(t)
	if after := tree(t, data); !slices.Equal(before, after) {
		t.Errorf("after the restart the data is\n%s\nand was\n%s", after, before)
	}
	for _, argv := range writes {
		d.Tare(t, argv...)
	}
}

// tree lists the names of a directory's files.
func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

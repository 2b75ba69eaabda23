package spread

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

// mounted is a new ext4 with or without a journal.
func mounted(t *testing.T, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "point")
	if err := errors.Join(os.Mkdir(point, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 256<<20)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{append([]string{"mkfs.ext4", "-q", image}, options...), {"mount", "-o", "loop", image, point}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	})
	return point
}

// group is the one that ext4 has a new directory in.
func group(t *testing.T, dir string, perGroup uint64) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := errors.Join(os.Mkdir(dir, 0o755), unix.Stat(dir, &st)); err != nil {
		t.Fatal(err)
	}
	return (st.Ino - 1) / perGroup
}

func TestChildren(t *testing.T) {
	testutil.RequireRoot(t)
	const perGroup = 256 // several groups of groups, which is what the kernel chooses among
	small := []string{"-N", "8192", "-g", "1024", "-b", "1024", "-G", "2"}
	groups := func(at string) map[uint64]bool {
		parent := filepath.Join(at, "parent")
		if err := os.Mkdir(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		Children(parent)
		found := map[uint64]bool{}
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			found[group(t, filepath.Join(parent, name), perGroup)] = true
		}
		return found
	}
	if found := groups(mounted(t, append(small, "-O", "^has_journal")...)); len(found) < 3 {
		t.Errorf("without a journal the directories are in the groups %v", found)
	}
	if found := groups(mounted(t, small...)); len(found) > 2 {
		t.Errorf("with a journal the directories are in the groups %v", found)
	}
	Children(t.TempDir()) // whatever that is on
	Children("/proc")
	Children("/not/there")
}

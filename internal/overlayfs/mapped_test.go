package overlayfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/internal/userns"
)

// Layers that are stored once are shown with the IDs of a namespace, and what is
// made has on disk the IDs that it has there. Both ways of mounting.
func TestMountMapped(t *testing.T) {
	testutil.RequireRoot(t)
	f, err := userns.Make(&userns.Map{UIDs: []userns.Range{{Host: 300000, Count: 1000}}, GIDs: []userns.Range{{Host: 400000, Count: 1000}}}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	users := &Users{FD: int(f.User.Fd()), UID: 300000, GID: 400000}
	root := t.TempDir()
	for _, name := range []string{"a", "b", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, id := range map[string]int{"a/root": 0, "b/other": 7, "b/none": 5000} {
		if err := os.WriteFile(filepath.Join(root, name), []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(root, name), id, id); err != nil {
			t.Fatal(err)
		}
	}
	o := Overlay{Lower: []string{root + "/a", root + "/b"}, Upper: root + "/upper", Work: root + "/work", Users: users}
	fd, err := Mount(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	at := fmt.Sprintf("/proc/self/fd/%d/", fd)
	for name, want := range map[string][2]uint32{"root": {300000, 400000}, "other": {300007, 400007}, "none": {65534, 65534}, ".": {300000, 400000}} {
		var st unix.Stat_t
		if err := unix.Lstat(at+name, &st); err != nil || st.Uid != want[0] || st.Gid != want[1] {
			t.Errorf("%s is %d:%d's, %v", name, st.Uid, st.Gid, err)
		}
	}
	thread.Own(func() bool {
		back, err := userns.Act(300000, 400000)
		if err != nil {
			t.Error(err)
		}
		defer back()
		if err := os.WriteFile(at+"made", nil, 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Chown(at+"made", 300003, 400004); err != nil {
			t.Error(err)
		}
		if err := os.Chmod(at+"other", 0o640); err != nil { // copies it up
			t.Error(err)
		}
		if err := os.Remove(at + "root"); err != nil {
			t.Error(err)
		}
		return true
	})
	for name, want := range map[string][2]uint32{"made": {3, 4}, "other": {7, 7}, "root": {0, 0}} {
		var st unix.Stat_t
		if err := unix.Lstat(o.Upper+"/"+name, &st); err != nil || st.Uid != want[0] || st.Gid != want[1] || (name == "root") != IsWhiteout(&st) {
			t.Errorf("%s is %d:%d's on disk, %#o, %v", name, st.Uid, st.Gid, st.Mode, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(o.Work+"/work", &st); err != nil || st.Uid != 0 {
		t.Errorf("overlay's own is %d's on disk, %v", st.Uid, err)
	}
}

// What cannot be shown so is said in one sentence: a file system that has no maps, and
// a mount that has one already.
func TestCannotMap(t *testing.T) {
	testutil.RequireRoot(t)
	f, err := userns.Make(&userns.Map{UIDs: []userns.Range{{Host: 300000, Count: 1000}}, GIDs: []userns.Range{{Host: 300000, Count: 1000}}}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir, err := BindMapped(t.TempDir(), 0, int(f.User.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	at := fmt.Sprintf("/proc/self/fd/%d", dir)
	if _, err := BindMapped(at, 0, int(f.User.Fd())); !errors.Is(err, ErrNoOwners) {
		t.Error(err)
	}
	if _, err := BindMapped("/proc", 0, int(f.User.Fd())); !errors.Is(err, ErrNoOwners) {
		t.Error(err)
	}
}

package stage

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
)

// What is there is the null device and an empty directory, and none of it changes.
func TestStage(t *testing.T) {
	testutil.RequireRoot(t)
	before, _ := os.ReadFile("/proc/self/mountinfo")
	made, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile("/proc/self/mountinfo"); string(after) != string(before) {
		t.Errorf("the host's mounts are now\n%s", after)
	}
	f := At(int(made.Fd()))
	if f == nil {
		t.Fatal("it is not known again")
	}
	defer f.Close()
	defer made.Close()
	if null, err := os.Open(os.DevNull); err != nil || At(int(null.Fd())) != nil {
		t.Errorf("the null device is taken for one; %v", err)
	}
	thread.Own(func() bool {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			t.Error(err)
		} else if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNS); err != nil {
			t.Error(err)
		}
		if list, err := os.ReadDir("/"); err != nil || len(list) < 2 || list[0].Name() != "dev" || "/"+list[1].Name() != Empty {
			t.Errorf("in it are %v, %v", list, err)
		}
		groups, err := cgroupfs.Host()
		if err != nil {
			t.Error(err)
		}
		for i := range groups.V1 {
			h := &groups.V1[i]
			for _, c := range append(h.Controllers, h.Name()) {
				if st, err := os.Stat(Groups(groups.V1) + "/" + strings.TrimPrefix(c, "name=")); err != nil || !st.IsDir() {
					t.Errorf("there is no place for control groups of %s: %v", c, err)
				}
			}
		}
		for _, name := range []string{"/x", Empty + "/x", "/dev/x", Groups(groups.V1) + "/x"} {
			if err := os.WriteFile(name, nil, 0o644); err == nil {
				t.Errorf("%s was made", name)
			}
		}
		if err := os.WriteFile(os.DevNull, []byte("x"), 0); err != nil {
			t.Error(err)
		}
		if err := os.Chmod(os.DevNull, 0o666); !errors.Is(err, unix.EROFS) {
			t.Errorf("the null device's mode can be changed: %v", err)
		}
		return false
	})
}

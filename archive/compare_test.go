package archive

import (
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/internal/deltree"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/images"
)

func TestMain(m *testing.M) {
	code := m.Run()
	images.Clean()
	os.Exit(code)
}

// inMemory is a directory of the test, in memory where that can be: trees of
// thousands of files take long on a busy disk.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "archive")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := deltree.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func same(t *testing.T, ours, theirs string) {
	t.Helper()
	a, b := images.Tree(t, ours), images.Tree(t, theirs)
	if diff := cmp.Diff(b, a); diff != "" {
		t.Errorf("ours is + in\n%s", diff)
	}
}

// A whole Debian comes out as GNU tar and as umoci extract it.
func TestDebianAsOthers(t *testing.T) {
	testutil.RequireRoot(t)
	data, err := os.ReadFile(images.Debian(t))
	if err != nil {
		t.Fatal(err)
	}
	sameAsTar(t, data)

	f, err := os.Open(images.Debian(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img := images.Make(t, images.Spec{Bases: []io.Reader{f}})
	ours, theirs := inMemory(t), inMemory(t)+"/bundle"
	layer, err := os.Open(images.Layout(img.Dir).Path(img.Layers[0].Digest))
	if err != nil {
		t.Fatal(err)
	}
	defer layer.Close()
	// The image has a layer of the tests' own above, which is of no matter.
	plain, _, err := compression.Decompress(layer)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := extract(t, ours, plain); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("umoci", "unpack", "--image", img.Dir+":"+img.Tag, theirs).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.RemoveAll(theirs + "/rootfs/layer0"); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(ours, &st); err != nil {
		t.Fatal(err)
	}
	// The removal changed the root's time.
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, theirs+"/rootfs", times, 0); err != nil {
		t.Fatal(err)
	}
	same(t, ours, theirs+"/rootfs")
}

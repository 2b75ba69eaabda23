package e2e

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestCopyUpKilled kills the daemon while it copies an image's files to a volume:
// that has all of them or none, and nothing else is left.
func TestCopyUpKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("it begins several daemons")
	}
	testutil.RequireRoot(t)
	d := daemon.New(t)
	d.Up(t)
	const files = 1500
	archive := filepath.Join(d.Dir, "many.tar")
	out, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(out)
	for i := range files {
		name, text := fmt.Sprintf("many/%d/%d", i%50, i), strings.Repeat("x", i)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	d.Tare(t, "import", archive, "many")
	count := func(volume string) int {
		all, err := filepath.Glob(filepath.Join(d.Dir, "data/volumes", volume, "_data/*/*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for round, wait := range []time.Duration{8, 25, 60} {
		name := fmt.Sprint("volume", round)
		// It is there, and somebody else has it: the copy goes into it entry by entry.
		if round%2 == 1 {
			d.Tare(t, "volume", "create", name)
			d.Tare(t, "create", "--name", name, "-v", name+":/none", "many", "x")
		}
		cmd := d.Command(t, "tare", "create", "-v", name+":/many", "-v", "/many/1", "many", "x")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(wait * time.Millisecond) // a moment in the middle, whichever
		d.Signal(t, syscall.SIGKILL)
		cmd.Wait()
		d.Up(t)
		if n := count(name); n != 0 && n != files {
			t.Errorf("killed after %d ms, the volume has %d files of %d", wait, n, files)
		}
		left, _ := filepath.Glob(filepath.Join(d.Dir, "data/volumes/*"))
		more, _ := filepath.Glob(filepath.Join(d.Dir, "data/volumes/*/cop*"))
		hidden, _ := filepath.Glob(filepath.Join(d.Dir, "data/volumes/.*"))
		for _, path := range append(append(left, more...), hidden...) {
			base := filepath.Base(path)
			if _, err := os.Stat(filepath.Join(path, "volume.json")); err != nil {
				t.Errorf("killed after %d ms: %s is left", wait, base)
			}
			if len(base) == 64 && d.Tare(t, "ps", "-aq", "--filter", "volume="+base) == "" {
				t.Errorf("killed after %d ms: the volume %s belongs to nobody", wait, base)
			}
		}
		d.Tare(t, "create", "--name", "again", "-v", name+":/many", "many", "x")
		if n := count(name); n != files {
			t.Errorf("after all the volume has %d files of %d", n, files)
		}
		for _, id := range strings.Fields(d.Tare(t, "ps", "-aq")) {
			d.Tare(t, "rm", "-v", id)
		}
		d.Tare(t, "volume", "prune", "-af")
	}
}

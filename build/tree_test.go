package build

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/snapshot"
)

// A tree is let go though a process that is just being started still has a copy
// of a descriptor in it.
func TestCloseTreeWhileProcessesStart(t *testing.T) {
	testutil.RequireRoot(t)
	content, place := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(content, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var starters sync.WaitGroup
	for range 4 {
		starters.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_ = exec.Command("/bin/true").Run()
				}
			}
		})
	}
	defer starters.Wait()
	defer close(done)
	for range 100 {
		err := inPlace(place, func() error {
			tr, err := mounted(snapshot.Mount{Dir: content})
			if err != nil {
				return err
			}
			if err := tr.attach(place); err != nil {
				return err
			}
			f, err := os.Open(filepath.Join(tr.path, "file"))
			if err == nil {
				f.Close()
			}
			return tr.Close()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

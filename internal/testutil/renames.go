package testutil

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

// Renames renames files on every processor until the test's end: whatever the
// kernel gives up because of a rename somewhere else, it gives up often.
func Renames(t testing.TB) {
	t.Helper()
	dir, done := t.TempDir(), make(chan struct{})
	var busy sync.WaitGroup
	t.Cleanup(func() { close(done); busy.Wait() })
	for i := range max(2, runtime.NumCPU()) {
		from := filepath.Join(dir, strconv.Itoa(i))
		to := from + ".new"
		if err := os.Mkdir(from, 0o755); err != nil {
			t.Fatal(err)
		}
		busy.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := errors.Join(os.Rename(from, to), os.Rename(to, from)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
}

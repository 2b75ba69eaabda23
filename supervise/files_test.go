package supervise_test

import (
	"os"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

// TestStartWithManyFiles starts processes while every number of descriptor
// around a hundred is in turn the next one: fork and exec puts files there.
func TestStartWithManyFiles(t *testing.T) {
	testutil.RequireRoot(t)
	l, err := supervise.NewLauncher(program, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.Fd() < 92 {
			continue
		}
		if err := l.Start(t.Context()); err != nil {
			t.Fatalf("with %d files open: %v", f.Fd(), err)
		}
		if f.Fd() > 106 {
			return
		}
	}
}

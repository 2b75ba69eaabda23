package ocirun

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// A process elsewhere is not one of the container's, one in a group below is.
func TestGrouped(t *testing.T) {
	testutil.RequireRoot(t)
	clean(t)
	dir, s := bundle(t, "sleep", "60")
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Signal(unix.SIGKILL, true)
		_, _ = c.Wait()
		if err := c.Delete(); err != nil {
			t.Error(err)
		}
	}()
	r := &restoration{Container: c}
	if err := r.grouped(c.Pid()); err != nil {
		t.Errorf("the container's own process: %v", err)
	}
	if err := r.grouped(os.Getpid()); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a process of the host: %v", err)
	}
}

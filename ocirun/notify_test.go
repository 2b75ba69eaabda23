package ocirun

import (
	"context"
	"errors"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/testutil"
	"golang.org/x/sys/unix"
)

// TestNotifications: of want of memory, of pressure before it, and of the end.
func TestNotifications(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "sleep", "60")
	limit := int64(24 << 20)
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	if unified, _ := cgroupfs.Unified(); unified { // where pressure is time, and dying takes none
		s.Linux.Resources.Unified = map[string]string{"memory.high": "22M"}
	}
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience(20*time.Second))
	defer cancel()
	ooms, err := c.NotifyOOM(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pressure, err := c.NotifyMemoryPressure(ctx, PressureLow)
	if err != nil {
		t.Fatal(err)
	}
	over, stop := context.WithCancel(ctx)
	unheard, err := c.NotifyOOM(over)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if _, open := <-unheard; open {
		t.Error("told after the end of its context")
	}
	if _, err := c.NotifyMemoryPressure(ctx, "some"); err == nil {
		t.Error("a level that is none")
	}
	p := *s.Process
	p.Args = []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"}
	hungry, err := c.Exec(ctx, ExecOptions{Process: &p})
	if err != nil {
		t.Fatal(err)
	}
	if _, open := <-ooms; !open {
		t.Error("not told of want of memory")
	}
	if _, open := <-pressure; !open {
		t.Error("not told of pressure")
	}
	if status, err := hungry.Wait(); err != nil || status.Code() != 137 {
		t.Error(status, err)
	}
	soon, cancel2 := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel2()
	if err := c.AwaitExit(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it runs: %v", err)
	}
	ended := make(chan error)
	go func() { ended <- c.AwaitExit(ctx) }()
	if err := c.Signal(unix.SIGKILL, false); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := c.Wait(); err != nil {
		t.Error(err)
	}
	if err := c.Delete(); err != nil {
		t.Error(err)
	}
	for range ooms { // closed with the group
	}
	cancel()
	for range pressure {
	}
}

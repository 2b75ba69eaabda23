package ocirun

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
)

// The timers of what is executed are not those of the thread that does it.
func TestTimerSlack(t *testing.T) {
	testutil.RequireRoot(t)
	thread.Slack = 77777
	defer func() { thread.Slack = 0 }()
	dir, s := bundle(t, "cat", "/proc/self/timerslack_ns")
	told := filepath.Join(t.TempDir(), "told")
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat /proc/self/timerslack_ns >" + told}}}}
	if out, _ := run(t, dir, s); out != "77777\n" {
		t.Errorf("the container's: %s", out)
	}
	if out, _ := os.ReadFile(told); string(out) != "77777\n" {
		t.Errorf("a hook's: %s", out)
	}
}

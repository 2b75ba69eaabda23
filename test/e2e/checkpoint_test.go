package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestCheckpoint runs the scripts of the directory with a daemon that finds CRIU.
func TestCheckpoint(t *testing.T) {
	before := os.Getenv("PATH")
	os.Setenv("PATH", filepath.Dir(testutil.CRIU(t))+":"+before) // t.Setenv is not for tests whose scripts run in parallel
	t.Cleanup(func() { os.Setenv("PATH", before) })
	daemon.Scripts(t, "checkpoint")
}

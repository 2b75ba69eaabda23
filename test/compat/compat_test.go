package compat

import (
	"os"
	"testing"

	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/images"
)

func TestMain(m *testing.M) {
	code := daemon.Isolated(m)
	images.Clean()
	os.Exit(code)
}

func TestDocker(t *testing.T) { daemon.Scripts(t, ".") }

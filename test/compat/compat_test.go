package compat

import (
	"os"
	"testing"

	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/sid"
)

func TestMain(m *testing.M) {
	code := daemon.Isolated(m)
	images.Clean()
	sid.Clean()
	os.Exit(code)
}

func TestDocker(t *testing.T) { daemon.Scripts(t, ".") }

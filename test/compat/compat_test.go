package compat

import (
	"os"
	"testing"

	"github.com/tarehq/tare/test/daemon"
)

func TestMain(m *testing.M) { os.Exit(daemon.Isolated(m)) }

func TestDocker(t *testing.T) { daemon.Scripts(t, ".") }

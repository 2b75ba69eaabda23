package e2e

import (
	"os"
	"testing"

	"github.com/tarehq/tare/test/daemon"
)

func TestMain(m *testing.M) { os.Exit(daemon.Isolated(m)) }

func TestScripts(t *testing.T) { daemon.Scripts(t, ".") }

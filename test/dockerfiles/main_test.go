package dockerfiles

import (
	"flag"
	"os"
	"testing"

	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/sid"
)

var update = flag.Bool("update", false, "write the peer's answers into testdata")

func TestMain(m *testing.M) {
	code := daemon.Isolated(m)
	images.Clean()
	sid.Clean()
	os.Exit(code)
}

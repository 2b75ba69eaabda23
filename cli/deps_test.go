package cli_test

import (
	"os/exec"
	"strings"
	"testing"
)

// forbidden are packages that would make every call of tare slower, and why.
var forbidden = map[string]string{
	"google.golang.org/grpc":              "gRPC",
	"go.opentelemetry.io/":                "tracing",
	"github.com/distribution/reference":   "regular expressions compiled at start-up",
	"github.com/opencontainers/go-digest": "a registry of hashes at start-up",
	"github.com/moby/moby":                "links go-digest; client has small structs of its own",
	"net/http":                            "client has an HTTP/1.1 of its own that starts twice as fast",
	"regexp":                              "compiled at start-up wherever it is used",
	"github.com/spf13/cobra":              "only the called command is built",
}

func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/tarehq/tare/cmd/tare").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for ban, why := range forbidden {
			if dep == ban || strings.HasPrefix(dep, strings.TrimSuffix(ban, "/")+"/") {
				t.Errorf("tare links %s: %s", dep, why)
			}
		}
	}
}

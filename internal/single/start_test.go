//go:build amd64

package single

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A program that begins before the runtime does finds everything as it was given,
// but for what is told of here.
func TestStart(t *testing.T) {
	program := filepath.Join(t.TempDir(), "started")
	if out, err := exec.Command("go", "build", "-o", program, "-ldflags", "-E tare_start_brief", "./testdata/started").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	limits := fmt.Sprint(files.Max, " ", files.Max) // package os raises the soft one
	var environment []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "GOMAXPROCS=") {
			environment = append(environment, kv)
		}
	}
	for _, test := range []struct{ shell, want string }{
		{`exec "$0" a b`, "1 true  false " + limits + " 1000000 true [a b]"},
		{`exec "$0"`, "1 true  false " + limits + " 1000000 true []"},
		{`exec "$0" <&-`, "1 true  false " + limits + " 1000000 true []"},
		{`GOMAXPROCS=2 exec "$0" a`, "1 true 2 true " + limits + " 1000000 true [a]"},
		{`exec env -i "$0" a`, "1 true  false " + limits + " 1000000 true [a]"},
	} {
		cmd := exec.Command("sh", "-c", test.shell, program)
		cmd.Env = environment
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != test.want {
			t.Errorf("%s: %v, %q instead of %q", test.shell, err, got, test.want)
		}
	}
}

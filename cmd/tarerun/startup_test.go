package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Go code is kept to one processor before what costs something is initialised.
func TestSingleFirst(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "--version")
	cmd.Env = append(os.Environ(), "TARERUN_TEST_MAIN=1", "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var order []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "init" {
			order = append(order, f[1])
		}
	}
	own := slices.Index(order, "github.com/tarehq/tare/internal/single")
	if own < 0 || own > slices.Index(order, "syscall") || own > slices.Index(order, "os") {
		t.Errorf("the packages are initialised in the order %v", order)
	}
}

//go:build amd64

package single_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestEntry builds a program that begins at the entry, and one that does not, and
// has both tell what they find.
func TestEntry(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join("testdata", "told", "main.go")
	build := func(name string, flags ...string) string {
		out := filepath.Join(dir, name)
		cmd := exec.Command("go", append([]string{"build", "-o", out}, append(flags, source)...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return out
	}
	with := build("with", "-ldflags=-E github.com/tarehq/tare/internal/single.entry")
	without := build("without")
	slack, err := os.ReadFile("/proc/self/timerslack_ns")
	if err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	// Go raises its own, and gives children what it began with.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 77, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) }()
	common := []string{"processors 1", "slack " + strings.TrimSpace(string(slack)), fmt.Sprintf("children 77 %d", before.Max)}
	for _, c := range []struct {
		what, program string
		args, env     []string
		has, hasNot   []string
	}{
		{"begins at the entry", with, []string{"a", "", "b c"}, []string{"A=1", "GOMAXPROC=x", "B="},
			append(common, "added GOMAXPROCS 1", `args ["a" "" "b c"]`, "env A=1", "env GOMAXPROC=x", "env B=", "rate 0", "to be "+common[1][len("slack "):]), []string{"env GOMAXPROCS", "open"}},
		{"without a variable", with, nil, []string{}, append(common, "added GOMAXPROCS 1", "args []"), []string{"env"}},
		{"with the caller's own", with, []string{"x"}, []string{"GOMAXPROCS=2", "A=1"},
			append(common, "env GOMAXPROCS=2", "env A=1", `args ["x"]`), []string{"added"}},
		{"begins as usual", without, []string{"a"}, []string{"A=1"}, append(common, "env A=1", `args ["a"]`), []string{"added"}},
	} {
		cmd := exec.Command(c.program, c.args...)
		cmd.Env = c.env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", c.what, err, out)
			continue
		}
		var lines []string
		for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
			lines = append(lines, s.Text())
		}
		for _, want := range c.has {
			if !slices.Contains(lines, want) {
				t.Errorf("%s: %q is missing:\n%s", c.what, want, out)
			}
		}
		for _, bad := range c.hasNot {
			if slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, bad) }) {
				t.Errorf("%s: there is %q:\n%s", c.what, bad, out)
			}
		}
	}
}

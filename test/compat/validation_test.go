package compat

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// wrapped makes a program that is a runtime with a state directory of its own,
// for callers that give none.
func wrapped(t *testing.T, name, program string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	script := fmt.Sprintf("#!/bin/sh\nexec %s --root %s/state \"$@\"\n", program, dir)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// validators builds the OCI's validation programs and what they need beside them.
func validators(t *testing.T) (dir string, names []string) {
	t.Helper()
	dir = t.TempDir()
	module := filepath.Join(daemon.Root(), "test/runtimetools")
	golang := func(args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
		var problem strings.Builder
		cmd.Stderr = &problem
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go %v: %v: %s", args, err, problem.String())
		}
		return strings.TrimSpace(string(out))
	}
	const tools = "github.com/opencontainers/runtime-tools"
	src := golang("list", "-m", "-f", "{{.Dir}}", tools)
	entries, err := os.ReadDir(filepath.Join(src, "validation"))
	if err != nil {
		t.Fatal(err)
	}
	build := []string{"build", "-o", dir + "/", tools + "/cmd/runtimetest"}
	for _, e := range entries {
		if e.IsDir() && e.Name() != "util" {
			names, build = append(names, e.Name()), append(build, tools+"/validation/"+e.Name())
		}
	}
	golang(build...)
	name := "rootfs-" + runtime.GOARCH + ".tar.gz"
	b, err := os.ReadFile(filepath.Join(src, name))
	if err != nil {
		t.Skip(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, names
}

var assertion = regexp.MustCompile(`(?m)^ *(not ok|ok) (\d+ - .*)$`)

// verdict is what one validation program says of a runtime: what holds, and what
// does not. One that ends by an error has no verdict.
func verdict(t *testing.T, dir, name, runtime string) (good, bad map[string]bool, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "./"+name)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "RUNTIME="+runtime)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	good, bad = map[string]bool{}, map[string]bool{}
	for _, m := range assertion.FindAllStringSubmatch(string(out), -1) {
		if m[1] == "ok" {
			good[m[2]] = true
		} else {
			bad[m[2]] = true
		}
	}
	if err != nil {
		bad["ends by "+err.Error()] = true
	} else {
		good["ends well"] = true
	}
	return good, bad, string(out)
}

// TestRuntimeTools: nothing holds for runc that does not hold for tarerun, by
// the OCI's own validation. What the machine cannot do holds for neither.
func TestRuntimeTools(t *testing.T) {
	needsClients(t)
	testutil.RequireRoot(t)
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("needs runc to compare with")
	}
	dir, names := validators(t)
	ours, theirs := wrapped(t, "tarerun", filepath.Join(daemon.Bin(t), "tarerun")), wrapped(t, "runc", runc)
	held := 0
	for _, name := range names {
		var alone []string
		var text string
		for range 3 { // some signal a shell before it has set its trap
			good, bad, said := verdict(t, dir, name, ours)
			if alone, text = nil, said; len(bad) > 0 {
				other, _, _ := verdict(t, dir, name, theirs)
				for what := range bad {
					if other[what] || strings.HasPrefix(what, "ends by") && other["ends well"] {
						alone = append(alone, what)
					}
				}
			}
			if len(alone) == 0 {
				held += len(good)
				break
			}
		}
		if len(alone) > 0 {
			t.Errorf("%s: holds for runc alone: %q\n%.2000s", name, alone, text)
		}
	}
	t.Logf("%d assertions of %d programs hold", held, len(names))
	if held < 1000 {
		t.Errorf("only %d assertions hold", held)
	}
}

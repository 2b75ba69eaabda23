package testutil

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// CRIU is the path of a program criu that is new enough for today's kernels: the
// host's, or else Debian sid's in a tree of its own, which mmdebstrap makes once
// for all that have the same directory in TARE_TEST_SHARED, or else for the test.
// It runs with its own libraries, and is alone in its directory.
func CRIU(t testing.TB) string {
	t.Helper()
	RequireRoot(t)
	if path, err := exec.LookPath("criu"); err == nil {
		out, err := exec.Command(path, "--version").Output()
		if err == nil && strings.HasPrefix(string(out), "Version: 4.") {
			return path
		}
	}
	dir := os.Getenv("TARE_TEST_SHARED")
	if dir == "" {
		dir = t.TempDir()
	}
	dir = filepath.Join(dir, "criu")
	if err := Share(dir, makeCRIU); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "bin", "criu")
}

// makeCRIU makes dir/tree and dir/bin/criu, which goes where dir goes.
func makeCRIU(dir string) error {
	program, tree := filepath.Join(dir, "bin", "criu"), filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return err
	}
	// The clock of a test machine may be ahead of its package mirror.
	cmd := exec.Command("mmdebstrap", "--quiet", "--variant=extract", "--include=criu",
		`--aptopt=Acquire::Check-Valid-Until "false"`, "sid", tree, "http://deb.debian.org/debian")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap: %w: %s", err, out)
	}
	loader, _ := filepath.Glob(tree + "/usr/lib*/ld-linux-*")
	if len(loader) == 0 {
		loader, _ = filepath.Glob(tree + "/usr/lib/*/ld-linux-*")
	}
	libraries, _ := filepath.Glob(tree + "/usr/lib/*-linux-gnu")
	if len(loader) == 0 || len(libraries) == 0 {
		return fmt.Errorf("%s has no loader or no libraries: %v %v", tree, loader, libraries)
	}
	script := fmt.Sprintf("#!/bin/sh\nd=$(dirname \"$(readlink -f \"$0\")\")/..\nexec $d%s --library-path $d%s $d/tree/usr/sbin/criu \"$@\"\n",
		strings.TrimPrefix(loader[0], dir), strings.TrimPrefix(libraries[0], dir))
	return os.WriteFile(program, []byte(script), 0o755)
}

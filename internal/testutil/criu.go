package testutil

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
	path, err := sharedCRIU(filepath.Join(dir, "criu"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// sharedCRIU makes the tree below dir unless another process has, or waits for
// one that does.
func sharedCRIU(dir string) (string, error) {
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "bin", "criu")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.RemoveAll(dir); err != nil { // half of one
		return "", err
	}
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return "", err
	}
	// The clock of a test machine may be ahead of its package mirror.
	cmd := exec.Command("mmdebstrap", "--quiet", "--variant=extract", "--include=criu",
		`--aptopt=Acquire::Check-Valid-Until "false"`, "sid", tree, "http://deb.debian.org/debian")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mmdebstrap: %w: %s", err, out)
	}
	loader, _ := filepath.Glob(tree + "/usr/lib*/ld-linux-*")
	if len(loader) == 0 {
		loader, _ = filepath.Glob(tree + "/usr/lib/*/ld-linux-*")
	}
	libraries, _ := filepath.Glob(tree + "/usr/lib/*-linux-gnu")
	if len(loader) == 0 || len(libraries) == 0 {
		return "", fmt.Errorf("%s has no loader or no libraries: %v %v", tree, loader, libraries)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s --library-path %s %s/usr/sbin/criu \"$@\"\n", loader[0], libraries[0], tree)
	return program, os.WriteFile(program, []byte(script), 0o755)
}

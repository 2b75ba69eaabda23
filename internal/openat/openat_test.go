package openat

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

// Walks through ".." and links succeed while others rename, though the kernel
// gives some of them up.
func TestOpenBesideRenames(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/a/../a/b/../b/c/..", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	testutil.Renames(t)
	const want = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	name := strings.Repeat("a/b/c/../../../", 40) + "link"
	given := 0
	deadline := time.Now().Add(20 * time.Second)
	for opened := 0; opened < 200 || given == 0; {
		if time.Now().After(deadline) {
			t.Skip("the kernel gave no walk up in 20 s")
		}
		if fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: want}); err == nil {
			unix.Close(fd)
		} else if err == unix.EAGAIN {
			given++
		}
		fd, err := Open(root, name, unix.O_PATH|unix.O_DIRECTORY, want)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		opened++
	}
}

// What is answered by the kernel for good is told at once.
func TestOpenTellsOfErrors(t *testing.T) {
	root, err := unix.Open(t.TempDir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for name, want := range map[string]error{"no": unix.ENOENT, "../no": unix.EXDEV} {
		if _, err := Open(root, name, unix.O_PATH, Beneath); err != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(root, "../../no", unix.O_PATH, InRoot); err != unix.ENOENT {
		t.Errorf("in the root: %v", err)
	}
}

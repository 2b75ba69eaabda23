package ocirun

import (
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

// A child walks its container's links to the end, though the kernel gives up
// walks while any file of the machine is renamed.
func TestWalksBesideRenames(t *testing.T) {
	dir, s := shell(t, "cat /proc/mounts | grep -c ' /mnt/'")
	if err := unix.Symlink(strings.Repeat("../mnt/", 500), filepath.Join(dir, "rootfs", "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/" + name, Type: "tmpfs", Source: "tmpfs"})
	}
	testutil.Renames(t)
	for range 10 {
		if out, status := run(t, dir, s); out != "4\n" || status.Code() != 0 {
			t.Fatalf("got %q, code %d", out, status.Code())
		}
	}
}

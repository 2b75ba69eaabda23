// Package snapshottest is the contract of the store of layers and containers'
// files, which each of its drivers keeps.
package snapshottest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/snapshot"
)

// Suite is one driver on one file system.
type Suite struct {
	Driver string
	// Root is a directory on the file system for the tests' stores, each in one
	// of its own below it.
	Root string
}

// Run checks the driver.
func Run(t *testing.T, s Suite) {
	testutil.RequireRoot(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, Suite)
	}{
		{"layers", testLayers}, {"read only", testReadOnly}, {"begin before the parent", testBegin}, {"refusals", testRefusals},
		{"containers", testContainers}, {"stage", testStage}, {"mount points", testMountPoints}, {"no layers", testNoLayers}, {"usage", testUsage},
		{"removal", testRemoval}, {"sweep", testSweep}, {"reopening", testReopening}, {"crash", testCrash}, {"power loss", testPowerLoss},
		{"damage", testDamage}, {"format", testFormat}, {"status", testStatus},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, s) })
	}
}

// dir is a directory for one store.
func (s Suite) dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(s.Root, strings.ReplaceAll(filepath.Base(t.Name()), " ", "-"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s Suite) open(t testing.TB, dir string) *snapshot.Store {
	t.Helper()
	store, err := snapshot.Open(dir, s.Driver)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// attach makes the mount and returns the path of its root, with a slash.
func attach(t testing.TB, m snapshot.Mount) string {
	t.Helper()
	attr := 0
	if m.ReadOnly {
		attr = unix.MOUNT_ATTR_RDONLY
	}
	var fd int
	var err error
	if m.Dir != "" {
		fd, err = overlayfs.Bind(m.Dir, attr)
	} else {
		fd, err = overlayfs.Mount(overlayfs.Overlay{Lower: m.Lower, Upper: m.Upper, Work: m.Work}, attr)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d/", fd)
}

func write(t testing.TB, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// cleared waits until nothing is left in the directories of the store.
func cleared(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		testutil.Eventually(t, 20*time.Second, name+" is empty", func() bool {
			left, err := os.ReadDir(filepath.Join(dir, name))
			return err == nil && len(left) == 0
		})
	}
}

package snapshot_test

import (
	"os"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/snapshot/snapshottest"
)

func TestMain(m *testing.M) { os.Exit(testutil.OwnMounts(m)) }

func TestOverlay(t *testing.T) {
	snapshottest.Run(t, snapshottest.Suite{Driver: snapshot.Overlay, Root: t.TempDir()})
}

func TestBtrfs(t *testing.T) {
	snapshottest.Run(t, snapshottest.Suite{Driver: snapshot.Btrfs, Root: testutil.Btrfs(t)})
}

func TestVFS(t *testing.T) {
	snapshottest.Run(t, snapshottest.Suite{Driver: snapshot.VFS, Root: t.TempDir()})
}

func TestVFSInMemory(t *testing.T) {
	snapshottest.Run(t, snapshottest.Suite{Driver: snapshot.VFS, Root: testutil.Tmpfs(t)})
}

// Where the file system can, copies share their data.
func TestVFSByReflink(t *testing.T) {
	snapshottest.Run(t, snapshottest.Suite{Driver: snapshot.VFS, Root: testutil.Btrfs(t)})
}

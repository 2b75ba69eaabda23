package dir

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// TestDiskLosesBytes has the disk refuse what the page cache had taken already.
// A push is not acknowledged then, also not when it is tried again.
func TestDiskLosesBytes(t *testing.T) {
	testutil.RequireRoot(t)
	base := t.TempDir()
	below, root := filepath.Join(base, "below"), filepath.Join(base, "root")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	ok(t, errors.Join(os.Mkdir(below, 0o700), os.Mkdir(root, 0o700)))
	run("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", below)
	t.Cleanup(func() { run("umount", below) })
	disk := filepath.Join(below, "disk")
	run("truncate", "-s", "128M", disk)
	run("mkfs.ext4", "-q", "-F", "-J", "size=4", disk)
	run("mount", "-o", "loop", disk, root)
	t.Cleanup(func() { run("umount", root) })

	s := openAt(t, filepath.Join(root, "registry"))
	t.Cleanup(func() { ok(t, s.Close()) })
	u := create(t, s, "a") // makes the directories
	appendAll(t, u, []byte("small"))
	commit(t, u, []byte("small"))
	data := make([]byte, 24<<20)
	rand.NewChaCha8([32]byte{9}).Read(data)
	d := digest.FromBytes(data)
	u = create(t, s, "a")
	appendAll(t, u, data)
	if err := u.Commit(t.Context(), d); !errors.Is(err, errUnsynced) || !errors.Is(err, fault.Unavailable) {
		t.Fatalf("a push that the disk has lost: %v", err)
	}
	if _, err := s.OpenUpload(t.Context(), "a", u.ID()); !errors.Is(err, fault.NotFound) {
		t.Errorf("an upload that the disk has lost can go on: %v", err)
	}
	if _, err := s.Blob(t.Context(), "a", d); !errors.Is(err, fault.NotFound) {
		t.Errorf("a blob that the disk has lost is there: %v", err)
	}

	run("mount", "-o", "remount,size=256m", below)
	u = create(t, s, "a")
	appendAll(t, u, data)
	commit(t, u, data)
}

package dir

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// thin is a directory on a disk that loses what it has no room for. What it
// returns makes the room.
func thin(t *testing.T) (dir string, grow func()) {
	t.Helper()
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
	t.Cleanup(func() { run("umount", "--lazy", below) }) // a namespace that was made meanwhile may have it too
	disk := filepath.Join(below, "disk")
	run("truncate", "-s", "128M", disk)
	run("mkfs.ext4", "-q", "-F", "-J", "size=4", disk)
	run("mount", "-o", "loop", disk, root)
	t.Cleanup(func() { run("umount", root) })
	return filepath.Join(root, "registry"), func() { run("mount", "-o", "remount,size=256m", below) }
}

// TestDiskLosesBytes has the disk refuse what the page cache had taken already.
// A push is not acknowledged then, also not when it is tried again, nor are
// others of the same bytes, which share what was written.
func TestDiskLosesBytes(t *testing.T) {
	root, grow := thin(t)
	s := openAt(t, root)
	t.Cleanup(func() { ok(t, s.Close()) })
	u := create(t, s, "a") // makes the directories
	appendAll(t, u, []byte("small"))
	commit(t, u, []byte("small"))
	data := make([]byte, 24<<20)
	rand.NewChaCha8([32]byte{9}).Read(data)
	d := digest.FromBytes(data)
	uploads := map[string]*upload{"a": create(t, s, "a"), "other": create(t, s, "other"), "closed": create(t, s, "closed")}
	for part := range slices.Chunk(data, 4<<20) {
		for _, u := range uploads {
			appendAll(t, u, part)
		}
	}
	ok(t, uploads["closed"].Close())
	for _, repo := range []string{"a", "other"} {
		if err := uploads[repo].Commit(t.Context(), d); !errors.Is(err, errUnsynced) || !errors.Is(err, fault.Unavailable) {
			t.Errorf("a push that the disk has lost, to %s: %v", repo, err)
		}
	}
	for repo, u := range uploads {
		if _, err := s.OpenUpload(t.Context(), repo, u.ID()); !errors.Is(err, fault.NotFound) {
			t.Errorf("an upload to %s that the disk has lost can go on: %v", repo, err)
		}
		if _, err := s.Blob(t.Context(), repo, d); !errors.Is(err, fault.NotFound) {
			t.Errorf("a blob of %s that the disk has lost is there: %v", repo, err)
		}
	}

	grow()
	u = create(t, s, "a")
	appendAll(t, u, data)
	commit(t, u, data)
}

// TestLostWhileOthersGoOn has an upload be in the middle of what the disk has
// lost of another one.
func TestLostWhileOthersGoOn(t *testing.T) {
	t.Parallel()
	s := openAt(t, t.TempDir())
	defer s.Close()
	data := make([]byte, 2<<20)
	rand.NewChaCha8([32]byte{10}).Read(data)
	first, second, third := create(t, s, "a"), create(t, s, "b"), create(t, s, "c")
	appendAll(t, first, data)
	appendAll(t, second, data[:1<<20])
	appendAll(t, third, data[:1<<20])
	b := first.body
	if second.body != b || third.body != b {
		t.Fatal("the uploads do not share their bytes")
	}
	ok(t, first.Cancel(t.Context()))
	if err := s.bodies.spoil(b, unsynced(unix.ENODATA)); !errors.Is(err, unix.ENODATA) {
		t.Error(err)
	}
	for name, more := range map[string]*upload{"the same": second, "a branch": third} {
		rest := data[1<<20:]
		if name == "a branch" {
			rest = []byte("else")
		}
		if _, err := more.Append(t.Context(), bytes.NewReader(rest)); !errors.Is(err, errUnsynced) || !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s: an upload of lost bytes goes on: %v", name, err)
		}
		ok(t, more.Close())
	}
	left, err := os.ReadDir(s.path("uploads"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

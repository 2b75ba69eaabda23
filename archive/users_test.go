package archive

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/internal/userns"
)

// What a tree in a user namespace is packed to, and what is unpacked there, has the
// namespace's IDs in the archive: owners, capabilities and access lists.
func TestUsers(t *testing.T) {
	testutil.RequireRoot(t)
	m := &userns.Map{UIDs: []userns.Range{{Host: 300000, Count: 1000}}, GIDs: []userns.Range{{Host: 400000, Count: 1000}}}
	ns, err := userns.Make(m, false)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	caps, _ := hex.DecodeString("0100000200200000000000000000000000000000")
	// user::rw-, user:7:rwx, group::r--, group:8:r-x, mask::rwx, other::r--
	acl, _ := hex.DecodeString("02000000" + "01000600ffffffff" + "0200070007000000" + "04000400ffffffff" + "0800050008000000" + "10000700ffffffff" + "20000400ffffffff")
	for _, err := range []error{os.WriteFile(file, []byte("data"), 0o755), os.Chown(file, 5, 6),
		unix.Setxattr(file, aclAccess, acl, 0), unix.Setxattr(file, capabilities, caps, 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	pack := func(dir string, users *userns.Map) []byte {
		t.Helper()
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		var out bytes.Buffer
		if err := WriteOne(t.Context(), &out, root, ".", WriteOptions{Users: users}); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	mapped := func(dir string) *os.File {
		t.Helper()
		tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err == nil {
			err = userns.MapOwners(tree, int(ns.User.Fd()), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(tree), dir)
	}
	want := pack(dir, nil)
	seen := mapped(dir)
	defer seen.Close()
	if got := pack("/proc/self/fd/"+strconv.Itoa(int(seen.Fd())), m); !bytes.Equal(got, want) {
		t.Error("an archive of what a namespace sees differs from one of what is there")
	}
	other := t.TempDir()
	into := mapped(other)
	defer into.Close()
	thread.Own(func() bool {
		back, err := userns.Act(m.Root())
		if err != nil {
			t.Error(err)
		}
		defer back()
		root, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(into.Fd())))
		if err != nil {
			t.Error(err)
			return true
		}
		defer root.Close()
		if _, err := Extract(t.Context(), root, bytes.NewReader(want), Options{Whiteouts: NoWhiteouts, Users: m}); err != nil {
			t.Error(err)
		}
		return true
	})
	var st unix.Stat_t
	if err := unix.Stat(other+"/f", &st); err != nil || st.Uid != 5 || st.Gid != 6 {
		t.Errorf("the file is %d:%d's on disk, %v", st.Uid, st.Gid, err)
	}
	for name, value := range map[string][]byte{aclAccess: acl, capabilities: caps} {
		got := make([]byte, 100)
		n, err := unix.Getxattr(other+"/f", name, got)
		if err != nil || !bytes.Equal(got[:n], value) {
			t.Errorf("%s is %x, %v, want %x", name, got[:n], err, value)
		}
	}
}

package client

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

// TestKeepInodes has a client name other attributes for an old file by hard links to it:
// whoever has a link to the file sees no change. To a new file they are given.
func TestKeepInodes(t *testing.T) {
	testutil.RequireRoot(t)
	dir, layer := t.TempDir(), filepath.Join(t.TempDir(), "file")
	when := time.Unix(1e9, 0)
	for _, err := range []error{os.WriteFile(filepath.Join(dir, "a"), []byte("old"), 0o640), os.Chtimes(filepath.Join(dir, "a"), when, when), os.Link(filepath.Join(dir, "a"), layer)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := fsutil.NewDiskWriter(context.Background(), dir, fsutil.DiskWriterOpt{Filter: keepInodes(dir),
		SyncDataCb: func(_ context.Context, _ string, w io.WriteCloser) error { return w.Close() }})
	if err != nil {
		t.Fatal(err)
	}
	// A layer that is linked to it as well goes meanwhile.
	for begun := time.Now(); ; {
		other := layer + ".other"
		if err := errors.Join(os.Link(layer, other), os.Remove(other)); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(layer, &st); err != nil {
			t.Fatal(err)
		}
		if time.Unix(st.Ctim.Unix()).After(begun) {
			break
		}
	}
	for _, st := range []*types.Stat{
		{Path: "b", Linkname: "a", Mode: 0o4777, Uid: 7, Gid: 8, ModTime: 5, Xattrs: map[string][]byte{"user.x": []byte("y")}},
		{Path: "c", Linkname: "b", Mode: 0o777, Uid: 9, ModTime: 6},
	} {
		if err := w.HandleChange(fsutil.ChangeKindAdd, st.Path, &fsutil.StatInfo{Stat: st}, nil); err != nil {
			t.Fatal(err)
		}
	}
	fi, err := os.Stat(layer)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode() != 0o640 || !fi.ModTime().Equal(when) {
		t.Errorf("the file of a layer has become %v of %v", fi.Mode(), fi.ModTime())
	}
	if own, err := os.Stat(filepath.Join(dir, "c")); err != nil || !os.SameFile(own, fi) {
		t.Errorf("the hard link was not made: %v", err)
	}
}

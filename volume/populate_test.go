package volume

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

// imageDir is a directory as an image has it.
func imageDir(t *testing.T) *os.File {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "sub/g"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, 7, 8); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(dir, 0o3751); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestPopulate(t *testing.T) {
	testutil.RequireRoot(t)
	ctx := context.Background()
	from := imageDir(t)
	s := open(t, t.TempDir())
	filled := func(name string) {
		t.Helper()
		if got := names(t, s.data(name)); !slices.Equal(got, []string{"f", "sub"}) {
			t.Errorf("%s has %q", name, got)
		}
		var st unix.Stat_t
		if err := unix.Stat(s.data(name), &st); err != nil || st.Uid != 7 || st.Gid != 8 || st.Mode&0o7777 != 0o3751 {
			t.Errorf("%s is %d:%d %o", name, st.Uid, st.Gid, st.Mode&0o7777)
		}
		if left := names(t, s.dir(name)); !slices.Equal(left, []string{dataName, recordName}) {
			t.Errorf("%s keeps %q", name, left)
		}
	}
	s.mustCreate(t, CreateRequest{Name: "own", Holder: "c1"})
	s.mustCreate(t, CreateRequest{Name: "shared", Holder: "c1"})
	s.mustCreate(t, CreateRequest{Name: "shared", Holder: "c2"})
	running, err := os.Open(s.data("shared"))
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	for _, name := range []string{"own", "shared"} {
		if err := s.Populate(ctx, name, "c1", from); err != nil {
			t.Fatal(err)
		}
		filled(name)
	}
	if list, _ := running.Readdirnames(-1); len(list) != 2 {
		t.Errorf("who had it open before sees %q", list)
	}
	if err := os.Remove(filepath.Join(s.data("own"), "f")); err != nil {
		t.Fatal(err)
	}
	if err := s.Populate(ctx, "own", "c1", from); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s.data("own")); !slices.Equal(got, []string{"sub"}) {
		t.Errorf("filled twice: %q", got)
	}

	s.mustCreate(t, CreateRequest{Name: "ram", Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}})
	if _, err := s.Mount(ctx, "ram", "c9"); err != nil {
		t.Fatal(err)
	}
	if err := s.Populate(ctx, "ram", "c1", from); err != nil {
		t.Fatal(err)
	}
	filled("ram")
	if err := s.Unmount(ctx, "ram", "c9"); err != nil {
		t.Fatal(err)
	}
}

// A copy that a crash cut off goes, one that was whole goes on, and what is in the
// volume by then stays as it is.
func TestPopulationThatWasCutOff(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	s := open(t, root)
	for name, dirs := range map[string][]string{"part": {"copy-1/half"}, "whole": {"copied/a", "copied/b", "_data/b/theirs"}} {
		s.mustCreate(t, CreateRequest{Name: name})
		for _, dir := range dirs {
			if err := os.MkdirAll(filepath.Join(s.dir(name), dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chown(filepath.Join(s.dir("whole"), "copied"), 7, 8); err != nil {
		t.Fatal(err)
	}
	again := open(t, root)
	if got := names(t, again.data("part")); len(got) != 0 {
		t.Errorf("a part was taken for whole: %q", got)
	}
	if got := names(t, again.data("whole")); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("what was whole is now %q", got)
	}
	if got := names(t, filepath.Join(again.data("whole"), "b")); !slices.Equal(got, []string{"theirs"}) {
		t.Errorf("overwritten: %q", got)
	}
	for _, name := range []string{"part", "whole"} {
		if left := names(t, again.dir(name)); !slices.Equal(left, []string{dataName, recordName}) {
			t.Errorf("%s keeps %q", name, left)
		}
	}
}

// A draft is nobody's before it is published, and then like any other.
func TestDrafts(t *testing.T) {
	testutil.RequireRoot(t)
	ctx, root := context.Background(), t.TempDir()
	s := open(t, root)
	d, err := s.Draft(CreateRequest{Labels: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Fill(ctx, imageDir(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inspect(ctx, d.Name); err == nil {
		t.Error("it is there before it is published")
	}
	if err := d.Publish(); err != nil {
		t.Fatal(err)
	}
	v, err := open(t, root).Inspect(ctx, d.Name)
	if _, anonymous := v.Labels[AnonymousLabel]; err != nil || !anonymous || v.Labels["a"] != "b" || len(names(t, v.Mountpoint)) != 2 {
		t.Errorf("%+v, %v", v, err)
	}
	if d, err = s.Draft(CreateRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(); err != nil {
		t.Fatal(err)
	}
	if left := names(t, s.root); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
}

func TestUsageAndPrune(t *testing.T) {
	testutil.RequireRoot(t)
	ctx := context.Background()
	s := open(t, t.TempDir())
	from := imageDir(t)
	for _, name := range []string{"used", "unused", "other"} {
		s.mustCreate(t, CreateRequest{Name: name, Labels: map[string]string{"kind": name}})
	}
	anonymous, err := s.Create(ctx, CreateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	s.mustCreate(t, CreateRequest{Name: "mount", Options: map[string]string{"type": "tmpfs", "device": "x"}})
	s.SetUsers(func() map[string][]string { return map[string][]string{"used": {"c1", "c2"}} })
	for _, name := range []string{"used", "unused"} {
		if err := s.Populate(ctx, name, "c1", from); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(filepath.Join(s.data(name), "f"), filepath.Join(s.data(name), "again")); err != nil {
			t.Fatal(err)
		}
	}
	u, err := s.Usage(ctx)
	if err != nil || u.TotalCount != 4 || u.ActiveCount != 1 || u.TotalSize != 12 || u.Reclaimable != 6 {
		t.Errorf("%+v, %v", u, err)
	}
	for _, v := range u.Items {
		if v.Name == "used" && (v.UsageData.RefCount != 2 || v.UsageData.Size != 6) {
			t.Errorf("%+v", v.UsageData)
		}
	}
	prune := func(f map[string]map[string]bool, freed uint64, want ...string) {
		t.Helper()
		r, err := s.Prune(ctx, f)
		if err != nil || !slices.Equal(r.VolumesDeleted, want) || r.SpaceReclaimed != freed {
			t.Errorf("%v: %+v, %v", f, r, err)
		}
	}
	prune(nil, 0, anonymous.Name)
	prune(map[string]map[string]bool{"all": {"true": true}, "label": {"kind=other": true}}, 0, "other")
	prune(map[string]map[string]bool{"all": {"1": true}}, 6, "unused")
	if list, _, _ := s.List(ctx, nil); len(list) != 2 {
		t.Errorf("left: %+v", list)
	}
}

// A snapshot stays as it is, also one of nothing.
func TestSnapshotsAreNotFilled(t *testing.T) {
	testutil.RequireRoot(t)
	ctx := t.Context()
	s := open(t, t.TempDir())
	s.mustCreate(t, CreateRequest{Name: "data"})
	v, err := s.Clone(ctx, "data", CloneRequest{Name: "kept", Snapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Populate(ctx, "kept", "c1", imageDir(t)); err != nil {
		t.Fatal(err)
	}
	if got := names(t, v.Mountpoint); len(got) > 0 {
		t.Errorf("it has %q", got)
	}
}

// Who has the volume can put a link in the place of a copy that is being moved.
func TestPopulationFollowsNoLink(t *testing.T) {
	testutil.RequireRoot(t)
	theirs, data := imageDir(t), t.TempDir()
	if err := os.Symlink(theirs.Name(), filepath.Join(data, innerCopiedName)); err != nil {
		t.Fatal(err)
	}
	p := &population{data: data, beside: data, prefix: innerCopyPrefix, copied: innerCopiedName, inner: true}
	if err := p.move(); err == nil {
		t.Error("it was moved")
	}
	if got := names(t, theirs.Name()); !slices.Equal(got, []string{"f", "sub"}) {
		t.Errorf("left there: %q", got)
	}
}

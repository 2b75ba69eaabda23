// Package snapshottest is the contract of the store of layers and containers'
// files, which each of its drivers keeps.
package snapshottest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/fault"
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
		{"containers", testContainers}, {"mount points", testMountPoints}, {"no layers", testNoLayers}, {"usage", testUsage},
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

// testLayers goes through the layers of Cases.
func testLayers(t *testing.T, s Suite) {
	for _, c := range Cases {
		t.Run(c.Name, func(t *testing.T) {
			store := s.open(t, s.dir(t))
			chain := c.Unpack(t, store)
			view, err := store.LayerView(chain)
			got := Show(t, view, err)
			for name, want := range c.Want {
				if got[name] != want {
					t.Errorf("%s is %q, want %q", name, got[name], want)
				}
			}
			for name := range got {
				if _, ok := c.Want[name]; !ok && name != "." {
					t.Errorf("%s is there: %s", name, got[name])
				}
			}
		})
	}
}

// testReadOnly mounts an image without a writable layer.
func testReadOnly(t *testing.T, s Suite) {
	store := s.open(t, s.dir(t))
	one := Unpack(t, store, "", Dir("./"), File("a", "1"), File("b", "1"))
	two := Unpack(t, store, one, File("a", "2"), File(".wh.b", ""))
	for _, c := range []struct {
		chain digest.Digest
		a, b  bool
		data  string
	}{{"", false, false, ""}, {one, true, true, "1"}, {two, true, false, "2"}} {
		m, err := store.ReadOnly(c.chain)
		if err != nil || !m.ReadOnly {
			t.Fatal(m, err)
		}
		at := attach(t, m)
		names, err := os.ReadDir(at)
		if want := len(slices.DeleteFunc([]bool{c.a, c.b}, func(there bool) bool { return !there })); err != nil || len(names) != want {
			t.Errorf("%v, %v: want %d names", names, err, want)
		}
		if c.a && read(at+"a") != c.data {
			t.Errorf("a is %q", read(at+"a"))
		}
		if err := os.WriteFile(at+"new", nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("an image was written to: %v", err)
		}
	}
	if _, err := store.ReadOnly(digest.FromString("none")); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// testBegin has a layer on its way before the one below it is there, where the
// driver can.
func testBegin(t *testing.T, s Suite) {
	store := s.open(t, s.dir(t))
	ctx := context.Background()
	low := Pack(t, Dir("./").Owned(3, 4, 0o750), Dir("etc").Owned(1, 2, 0o700), File("etc/a", "1"))
	top := Pack(t, File("etc/b", "2"))
	parent := digest.FromBytes(low)
	u, err := store.Begin(parent)
	if !store.Independent() {
		if !errors.Is(err, fault.NotFound) {
			t.Fatalf("a layer was begun without its parent: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.Apply(ctx, bytes.NewReader(top)); err != nil {
		t.Fatal(err)
	}
	early, err := store.Begin(parent)
	if err != nil {
		t.Fatal(err)
	}
	if err := early.Apply(ctx, bytes.NewReader(top)); err != nil {
		t.Fatal(err)
	}
	if _, err := early.Commit(parent, digest.FromBytes(top)); !errors.Is(err, fault.NotFound) {
		t.Errorf("a layer was placed without its parent: %v", err)
	}
	if _, err := store.Unpack(ctx, "", parent, bytes.NewReader(low)); err != nil {
		t.Fatal(err)
	}
	chain, err := u.Commit(parent, digest.FromBytes(top))
	if err != nil || chain != snapshot.ChainID(parent, digest.FromBytes(top)) {
		t.Fatal(chain, err)
	}
	view, err := store.LayerView(chain)
	tree := Show(t, view, err)
	if tree["."] != "40750 3:4 2001-09-09T01:46:40.123456789Z" || tree["etc"] != "40700 1:2 2001-09-09T01:46:40.123456789Z" {
		t.Errorf("%q", tree)
	}
}

// testRefusals asks for what cannot be.
func testRefusals(t *testing.T, s Suite) {
	dir := s.dir(t)
	store := s.open(t, dir)
	ctx := context.Background()
	data, long := Pack(t, File("a", "1")), Pack(t, File("a", strings.Repeat("x", 10_000)))
	if _, err := store.Unpack(ctx, "", digest.FromString("other"), bytes.NewReader(data)); !errors.Is(err, fault.Invalid) {
		t.Errorf("a layer with a wrong DiffID: %v", err)
	}
	base := Unpack(t, store, "", File("a", "1"))
	if _, err := store.Unpack(ctx, base, digest.FromString("other"), bytes.NewReader(data)); !errors.Is(err, fault.Invalid) {
		t.Errorf("a layer with a wrong DiffID on another: %v", err)
	}
	if _, err := store.Unpack(ctx, base, digest.FromBytes(long[:9000]), bytes.NewReader(long[:9000])); !errors.Is(err, fault.Invalid) {
		t.Errorf("a layer without its end: %v", err)
	}
	if _, err := store.Unpack(ctx, digest.FromString("none"), digest.FromBytes(data), bytes.NewReader(data)); !errors.Is(err, fault.NotFound) {
		t.Errorf("a layer on one that is not there: %v", err)
	}
	u, err := store.Begin(base)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Commit("", digest.FromBytes(data)); err == nil {
		t.Error("a layer was placed where it was not begun")
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := store.Unpack(ended, base, digest.FromBytes(data), bytes.NewReader(data)); !errors.Is(err, context.Canceled) {
		t.Errorf("a layer that nobody wants: %v", err)
	}
	cleared(t, dir, "new", "trash")
	for _, id := range []string{"", ".", "..", "a/b", "a\x00b"} {
		if _, err := store.Prepare(id, base); !errors.Is(err, fault.Invalid) {
			t.Errorf("the ID %q: %v", id, err)
		}
	}
	if _, err := store.Prepare("c", digest.FromString("none")); !errors.Is(err, fault.NotFound) {
		t.Errorf("a container on a layer that is not there: %v", err)
	}
	for _, f := range []func() error{
		func() error { _, err := store.Mount("none"); return err },
		func() error { _, err := store.View("none"); return err },
		func() error { _, err := store.Changes("none"); return err },
		func() error { _, _, err := store.Usage(ctx, "none"); return err },
		func() error { _, err := store.LayerView(digest.FromString("none")); return err },
	} {
		if err := f(); !errors.Is(err, fault.NotFound) {
			t.Error(err)
		}
	}
}

// testContainers writes in two containers of one image.
func testContainers(t *testing.T, s Suite) {
	store := s.open(t, s.dir(t))
	base := Unpack(t, store, "", Dir("./").Owned(5, 6, 0o751), File("a", "1"), File("b", "1"), Dir("d"), File("d/x", "1"))
	top := Unpack(t, store, base, File("b", "2"), File(".wh.a", ""))
	view, err := store.LayerView(top)
	image := Show(t, view, err)
	at := map[string]string{}
	for _, id := range []string{"one", "two"} {
		m, err := store.Prepare(id, top)
		if err != nil || m.ReadOnly {
			t.Fatal(m, err)
		}
		at[id] = attach(t, m)
	}
	write(t, at["one"]+"b", "mine")
	write(t, at["one"]+"new", "mine")
	if err := os.RemoveAll(at["one"] + "d"); err != nil {
		t.Error(err)
	}
	view, err = store.View("one") // while it is mounted
	seen := Show(t, view, err)
	if seen["new"] == "" || seen["d"] != "" || seen["a"] != "" || seen["b"] == image["b"] {
		t.Errorf("the view of a container that runs shows %q", seen)
	}
	if got := read(at["two"] + "b"); got != "2" {
		t.Errorf("the other container reads %q", got)
	}
	view, err = store.View("two")
	if seen := Show(t, view, err); seen["new"] != "" || seen["d/x"] != image["d/x"] || !strings.HasPrefix(seen["."], "40751 5:6") {
		t.Errorf("the view of the other shows %q", seen)
	}
	view, err = store.LayerView(top)
	Compare(t, Show(t, view, err), image)
	if _, err := store.Prepare("one", top); !errors.Is(err, fault.Conflict) {
		t.Errorf("prepared twice: %v", err)
	}
	if got := store.Active(); len(got) != 2 {
		t.Error(got)
	}
	changes, err := store.Changes("one")
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Close()
	if (changes.Upper != nil) != (s.Driver == snapshot.Overlay) {
		t.Errorf("the upper directory is %v", changes.Upper)
	}
	var told []string
	err = changes.Changes(t.Context(), func(c archive.Change) error {
		told = append(told, c.Path)
		return nil
	})
	if got := strings.Join(told, " "); err != nil || got != "/b /d /new" {
		t.Errorf("the changes are %s, %v", got, err)
	}
}

// testMountPoints looks at what a container has that its image has not.
func testMountPoints(t *testing.T, s Suite) {
	store := s.open(t, s.dir(t))
	chain := Unpack(t, store, "", Dir("./"), Symlink("etc", "/usr"), Dir("usr"), File("proc", "hidden"), Dir("dev").Owned(0, 0, 0o700))
	if _, err := store.Prepare("c", chain); err != nil {
		t.Fatal(err)
	}
	view, err := store.LayerView(chain)
	image := Show(t, view, err)
	view, err = store.View("c")
	tree := Show(t, view, err)
	var added []string
	for name, d := range tree {
		if image[name] != "" {
			continue
		}
		if !slices.Contains(snapshot.MountPoints(), name) {
			t.Errorf("%s is no mount point, and the image has none: %s", name, d)
		}
		added = append(added, name)
	}
	slices.Sort(added)
	if got := strings.Join(added, " "); got != ".dockerenv dev/console dev/pts dev/shm sys" {
		t.Errorf("added: %s", got)
	}
	if !strings.HasPrefix(tree["dev"], "40700 ") || !strings.HasPrefix(tree["dev/pts"], "40755 0:0") || !strings.HasPrefix(tree["dev/console"], "100755 0:0 0 ") {
		t.Errorf("%q", tree)
	}
}

// testNoLayers makes a container of an image without layers.
func testNoLayers(t *testing.T, s Suite) {
	store := s.open(t, s.dir(t))
	m, err := store.Prepare("c", "")
	if err != nil {
		t.Fatal(err)
	}
	at := attach(t, m)
	write(t, at+"a", "1")
	for _, name := range []string{"proc", "sys", "dev/pts", "etc/resolv.conf", ".dockerenv"} {
		if _, err := os.Lstat(at + name); err != nil {
			t.Error(err)
		}
	}
	if target, err := os.Readlink(at + "etc/mtab"); target != "/proc/mounts" {
		t.Error(target, err)
	}
	view, err := store.LayerView("")
	if tree := Show(t, view, err); len(tree) != 1 {
		t.Errorf("no layers make %v", tree)
	}
}

// testUsage checks the sizes of layers and containers.
func testUsage(t *testing.T, s Suite) {
	store := s.open(t, s.dir(t))
	base := Unpack(t, store, "", File("a", strings.Repeat("x", 5000)), File("b", "12345"), Link("c", "b"))
	top := Unpack(t, store, base, File("d", strings.Repeat("x", 3000)))
	if got := store.Size(base); got != 8192+4096 {
		t.Errorf("the lower layer has %d bytes", got)
	}
	if got := store.Size(top); got != 4096 {
		t.Errorf("the upper layer has %d bytes", got)
	}
	if got := store.Size(digest.FromString("none")); got != 0 {
		t.Error(got)
	}
	m, err := store.Prepare("c", top)
	if err != nil {
		t.Fatal(err)
	}
	at := attach(t, m)
	write(t, at+"new", "1234567")
	if err := os.Link(at+"new", at+"twice"); err != nil {
		t.Fatal(err)
	}
	changed, all, err := store.Usage(context.Background(), "c")
	if err != nil || changed != 7 || all != 5000+5+3000+7 {
		t.Errorf("%d of %d bytes, %v", changed, all, err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := store.Usage(ended, "c"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// testRemoval removes a container with much in it.
func testRemoval(t *testing.T, s Suite) {
	dir := s.dir(t)
	store := s.open(t, dir)
	chain := Unpack(t, store, "", File("a", "1"))
	m, err := store.Prepare("c", chain)
	if err != nil {
		t.Fatal(err)
	}
	at := attach(t, m)
	for i := range 20 {
		if err := os.MkdirAll(fmt.Sprintf("%sd%d/e/f", at, i), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, fmt.Sprintf("%sd%d/e/x", at, i), "1")
	}
	for range 2 { // the second time there is nothing to do
		if err := store.Remove("c"); err != nil {
			t.Error(err)
		}
	}
	if _, err := store.Mount("c"); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	cleared(t, dir, "active", "trash", "new")
	if _, err := store.Prepare("c", chain); err != nil {
		t.Errorf("a removed container's ID is taken: %v", err)
	}
}

// testSweep keeps what is needed and takes the rest.
func testSweep(t *testing.T, s Suite) {
	dir := s.dir(t)
	store := s.open(t, dir)
	base := Unpack(t, store, "", File("a", "1"))
	kept := Unpack(t, store, base, File("b", "1"))
	used := Unpack(t, store, base, File("c", "1"))
	unused := Unpack(t, store, used, File("d", "1"))
	if _, err := store.Prepare("c", used); err != nil {
		t.Fatal(err)
	}
	if err := store.Sweep([]digest.Digest{kept}); err != nil {
		t.Fatal(err)
	}
	if !store.Has(base) || !store.Has(kept) || !store.Has(used) || store.Has(unused) {
		t.Errorf("base %v, kept %v, used %v, unused %v", store.Has(base), store.Has(kept), store.Has(used), store.Has(unused))
	}
	if err := store.Remove("c"); err != nil {
		t.Error(err)
	}
	if err := store.Sweep(nil); err != nil || store.Has(base) {
		t.Error(err)
	}
	cleared(t, dir, "active", "trash", "new")
	if left, err := os.ReadDir(filepath.Join(dir, "layers")); err != nil || len(left) != 1 {
		t.Errorf("layers/ holds %v, %v", left, err)
	}
}

// testReopening finds all again.
func testReopening(t *testing.T, s Suite) {
	dir := s.dir(t)
	store := s.open(t, dir)
	base := Unpack(t, store, "", Dir("./").Owned(1, 1, 0o700), File("a", "1"), File("b", "1"))
	top := Unpack(t, store, base, File(".wh..wh..opq", ""), File("b", "2"))
	if err := store.SyncChain(top); err != nil {
		t.Fatal(err)
	}
	m, err := store.Prepare("c", top)
	if err != nil {
		t.Fatal(err)
	}
	write(t, attach(t, m)+"mine", "precious")
	view, err := store.View("c")
	before := Show(t, view, err)
	size := store.Size(top)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	store = s.open(t, dir)
	again, err := store.Mount("c")
	if err != nil || fmt.Sprint(again) != fmt.Sprint(m) {
		t.Errorf("%v instead of %v, %v", again, m, err)
	}
	view, err = store.View("c")
	Compare(t, Show(t, view, err), before)
	if before["a"] != "" || before["mine"] == "" {
		t.Errorf("%q", before)
	}
	if store.Size(top) != size || size == 0 {
		t.Errorf("%d bytes, and once %d", store.Size(top), size)
	}
	if err := store.Sweep(nil); err != nil || !store.Has(base) || !store.Has(top) {
		t.Errorf("a sweep took the layers of a container: %v", err)
	}
}

// testCrash finds what a process leaves that is killed.
func testCrash(t *testing.T, s Suite) {
	dir := s.dir(t)
	store := s.open(t, dir)
	base := Unpack(t, store, "", File("a", "1"))
	if err := store.Sync(); err != nil {
		t.Fatal(err)
	}
	u, err := store.Begin(base) // and not finished
	if err != nil {
		t.Fatal(err)
	}
	data := Pack(t, File("b/c", "1"))
	if err := u.Apply(context.Background(), bytes.NewReader(data[:len(data)-1600])); err == nil {
		t.Error("half a layer was applied")
	}
	if _, err := store.Prepare("doomed", base); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	// A removal that had just begun, and one that was all but done.
	if err := os.Rename(filepath.Join(dir, "active/doomed"), filepath.Join(dir, "trash/doomed.1")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "trash/old/deep/tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "new/file"), "")
	store = s.open(t, dir)
	if !store.Has(base) || len(store.Active()) != 0 {
		t.Errorf("has its layer: %v, active: %v", store.Has(base), store.Active())
	}
	cleared(t, dir, "active", "trash", "new")
	view, err := store.LayerView(base)
	if tree := Show(t, view, err); len(tree) != 2 {
		t.Errorf("%q", tree)
	}
}

// testPowerLoss drops the layers that were not synced.
func testPowerLoss(t *testing.T, s Suite) {
	dir := s.dir(t)
	store := s.open(t, dir)
	synced := Unpack(t, store, "", File("a", "1"))
	if err := store.SyncChain(synced); err != nil {
		t.Fatal(err)
	}
	unsynced := Unpack(t, store, synced, File("b", "1"))
	above := Unpack(t, store, unsynced, File("c", "1"))
	write(t, filepath.Join(dir, "layers", above.Encoded(), "synced"), "")
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	store = s.open(t, dir)
	if !store.Has(synced) || store.Has(unsynced) || store.Has(above) {
		t.Errorf("has the synced layer %v, the unsynced %v, the one above it %v", store.Has(synced), store.Has(unsynced), store.Has(above))
	}
	cleared(t, dir, "trash", "new")
	if again := Unpack(t, store, synced, File("b", "1")); again != unsynced || !store.Has(unsynced) {
		t.Error("the layer cannot be made again")
	}
}

// testDamage loses what a container lay on.
func testDamage(t *testing.T, s Suite) {
	dir := s.dir(t)
	store := s.open(t, dir)
	chain := Unpack(t, store, "", File("a", "1"))
	if err := store.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Prepare("c", chain); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Removexattr(filepath.Join(dir, "active/c"), "trusted.tare.layer"); err != nil {
		t.Fatal(err)
	}
	store = s.open(t, dir)
	if _, err := store.Mount("c"); err == nil || errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := store.Prepare("c", chain); !errors.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if err := store.Sweep(nil); err != nil || !store.Has(chain) {
		t.Errorf("a sweep took a layer of which nobody knows who needs it: %v", err)
	}
	if err := store.Remove("c"); err != nil {
		t.Error(err)
	}
	cleared(t, dir, "active", "trash")
}

// testFormat opens what is not this store's.
func testFormat(t *testing.T, s Suite) {
	dir := s.dir(t)
	s.open(t, dir).Close()
	file := filepath.Join(dir, "store.json")
	if got, want := read(file), fmt.Sprintf("{\"version\":1,\"driver\":%q}\n", s.Driver); got != want {
		t.Errorf("the format is %q, want %q", got, want)
	}
	for _, other := range []string{snapshot.Overlay, snapshot.Btrfs, snapshot.VFS} {
		if other == s.Driver {
			continue
		}
		_, err := snapshot.Open(dir, other)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "--storage-driver="+s.Driver) {
			t.Errorf("opened by %s: %v", other, err)
		}
	}
	if name, because, err := snapshot.Choose(dir); name != s.Driver || because != nil || err != nil {
		t.Errorf("%s would be chosen: %v, %v", name, because, err)
	}
	for data, want := range map[string]string{
		fmt.Sprintf(`{"version": 2, "driver": %q}`, s.Driver): "start the newer program", `{"version": 0}`: "is " + dir + " the right directory", "": "is " + dir + " the right directory",
	} {
		write(t, file, data)
		if _, err := snapshot.Open(dir, s.Driver); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", data, err)
		}
	}
	// Without the file it is an overlay's of the first days.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	store, err := snapshot.Open(dir, s.Driver)
	if s.Driver != snapshot.Overlay {
		if !errors.Is(err, fault.Invalid) {
			t.Errorf("a store without a format: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	store.Close()
	if got := read(file); got != "{\"version\":1,\"driver\":\"overlay\"}\n" {
		t.Errorf("the format became %q", got)
	}
}

func testStatus(t *testing.T, s Suite) {
	store := s.open(t, s.dir(t))
	want := map[string]string{snapshot.Overlay: "overlayfs", snapshot.Btrfs: "btrfs", snapshot.VFS: "vfs"}[s.Driver]
	rows := store.DriverStatus()
	if store.Driver() != want || len(rows) == 0 || rows[0] != [2]string{"driver-type", "io.containerd.snapshotter.v1"} {
		t.Error(store.Driver(), rows)
	}
}

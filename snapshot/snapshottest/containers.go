package snapshottest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

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
	testChanges(t, store, s.Driver)
	testAdopt(t, store, s.Driver, top)
}

// testAdopt makes a layer of what the container one has changed, and looks
// whether it is the one that its archive makes.
func testAdopt(t *testing.T, store *snapshot.Store, driver string, below digest.Digest) {
	t.Helper()
	changes, err := store.Changes("one")
	if err != nil {
		t.Fatal(err)
	}
	var tar bytes.Buffer
	_, err = changes.WriteLayer(t.Context(), &tar, archive.WriteOptions{})
	if err := errors.Join(err, changes.Close()); err != nil {
		t.Fatal(err)
	}
	diffID := digest.FromBytes(tar.Bytes())
	chain, err := store.Adopt("one", diffID, int64(tar.Len()), time.Time{})
	if driver != snapshot.Overlay {
		if !errors.Is(err, fault.NotImplemented) {
			t.Errorf("adopted: %v", err)
		}
		return
	}
	if err != nil || chain != snapshot.ChainID(below, diffID) || !store.Has(chain) || slices.Contains(store.Active(), "one") {
		t.Fatalf("%s %v, active: %v", chain, err, store.Active())
	}
	testMade(t, store, chain, tar.Bytes())
	view, err := store.LayerView(chain)
	adopted := Show(t, view, err)
	if err := store.Sweep([]digest.Digest{below}); err != nil {
		t.Fatal(err)
	}
	again, err := store.Unpack(t.Context(), below, diffID, &tar)
	if err != nil || again != chain {
		t.Fatal(again, err)
	}
	view, err = store.LayerView(chain)
	Compare(t, Show(t, view, err), adopted)
}

// testMade makes the archive of a layer that was adopted again, which is the one
// that it had.
func testMade(t *testing.T, store *snapshot.Store, chain digest.Digest, want []byte) {
	t.Helper()
	made, size, _, ok := store.Made(digest.FromBytes(want))
	if made != chain || size != int64(len(want)) || !ok {
		t.Errorf("made %s, %d bytes, %v", made, size, ok)
	}
	changes, err := store.LayerChanges(chain)
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	_, err = changes.WriteLayer(t.Context(), &again, archive.WriteOptions{})
	if err := errors.Join(err, changes.Close()); err != nil || !bytes.Equal(again.Bytes(), want) {
		t.Errorf("the archive became another: %d bytes, not %d: %v", again.Len(), len(want), err)
	}
}

// testChanges lists what the container one has changed.
func testChanges(t *testing.T, store *snapshot.Store, driver string) {
	t.Helper()
	changes, err := store.Changes("one")
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Close()
	if (changes.Upper != nil) != (driver == snapshot.Overlay) {
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

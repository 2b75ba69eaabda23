package snapshottest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

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

package snapshottest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

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
		func() error { _, _, err := store.Usage(ctx, "none"); return err },
		func() error { _, err := store.LayerView(digest.FromString("none")); return err },
	} {
		if err := f(); !errors.Is(err, fault.NotFound) {
			t.Error(err)
		}
	}
}

package snapshottest

import (
	"bytes"
	"errors"
	"testing"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

// testStage fills a place beside a container's and has the container take it.
func testStage(t *testing.T, s Suite) {
	dir := s.dir(t)
	store := s.open(t, dir)
	base := Unpack(t, store, "", Dir("./").Owned(5, 6, 0o751), File("a", "1"), File("b", "1"), Dir("d"), File("d/x", "1"))
	if _, err := store.Stage("one", 0); !errors.Is(err, fault.NotFound) {
		t.Errorf("of a container that is not there: %v", err)
	}
	if _, err := store.Prepare("one", base); err != nil {
		t.Fatal(err)
	}
	show := func() map[string]string {
		t.Helper()
		v, err := store.View("one")
		return Show(t, v, err)
	}
	before := show()
	stage := func(layer []byte) (*snapshot.Staged, error) {
		t.Helper()
		p, err := store.Stage("one", 0)
		if err != nil {
			t.Fatal(err)
		}
		return p, p.Apply(t.Context(), bytes.NewReader(layer))
	}
	layer := Pack(t, File(".wh.a", ""), File("b", "mine"), Dir("d"), File("d/.wh..wh..opq", ""), File("d/y", "mine"))
	torn, err := stage(layer[:len(layer)/2-100])
	if err == nil {
		t.Error("half a layer is one")
	}
	whole, err := stage(layer)
	if err != nil {
		t.Fatal(err)
	}
	Compare(t, show(), before)
	if err := whole.Swap(); err != nil {
		t.Fatal(err)
	}
	after := show()
	if after["a"] != "" || after["d/x"] != "" || after["d/y"] == "" || after["b"] == before["b"] {
		t.Errorf("the container has %q", after)
	}
	if err := errors.Join(whole.Swap(), torn.Close()); err != nil { // back
		t.Error(err)
	}
	Compare(t, show(), before)
	if err := errors.Join(whole.Swap(), whole.Close(), whole.Close()); err != nil {
		t.Error(err)
	}
	Compare(t, show(), after)
	left, _ := stage(layer)
	if err := store.Remove("one"); err != nil {
		t.Fatal(err)
	}
	if err := left.Swap(); err == nil {
		t.Error("a container that is gone has a new place")
	}
	if err := left.Close(); err != nil {
		t.Error(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	store = s.open(t, dir)
	cleared(t, dir, "new", "trash", "active")
}

package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/snapshot/snapshottest"
)

// TestDriversAgree gives all drivers the same layers of entries that chance has
// chosen, and compares what they show, and what they refuse.
func TestDriversAgree(t *testing.T) {
	testutil.RequireRoot(t)
	dirs := map[string]string{snapshot.Overlay: t.TempDir(), snapshot.Btrfs: testutil.Btrfs(t), snapshot.VFS: t.TempDir()}
	stores := map[string]*snapshot.Store{}
	for driver, dir := range dirs {
		s, err := snapshot.Open(dir, driver)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores[driver] = s
	}
	layers, refused := 0, 0
	for seed := range uint64(60) {
		chance := rand.New(rand.NewPCG(seed, 0))
		var chain digest.Digest
		for range 4 {
			entries := someEntries(chance)
			data := snapshottest.Pack(t, entries...)
			var next digest.Digest
			said := map[string]error{}
			for driver, s := range stores {
				got, err := s.Unpack(context.Background(), chain, digest.FromBytes(data), bytes.NewReader(data))
				if said[driver] = err; err == nil {
					next = got
				} else if !errors.Is(err, fault.Invalid) {
					t.Errorf("seed %d: %s: %v", seed, driver, err)
				}
			}
			if layers++; next == "" {
				refused++
				continue
			}
			chain = next
			if !agree(t, stores, said, chain) {
				t.Fatalf("seed %d: the topmost layer is %v", seed, names(entries))
			}
		}
	}
	if refused > layers/2 {
		t.Errorf("%d of %d layers were refused: what is left says little", refused, layers)
	}
}

// agree tells whether all stores show the same of a layer that one of them has.
func agree(t *testing.T, stores map[string]*snapshot.Store, said map[string]error, chain digest.Digest) bool {
	t.Helper()
	show := func(driver string) map[string]string {
		view, err := stores[driver].LayerView(chain)
		return snapshottest.Show(t, view, err)
	}
	for driver, err := range said {
		if err != nil {
			t.Errorf("%s alone refuses: %v", driver, err)
			return false
		}
	}
	want := show(snapshot.Overlay)
	for _, driver := range []string{snapshot.Btrfs, snapshot.VFS} {
		t.Run(driver, func(t *testing.T) { snapshottest.Compare(t, show(driver), want) })
	}
	return !t.Failed()
}

func names(entries []snapshottest.Entry) []string {
	var names []string
	for _, e := range entries {
		names = append(names, fmt.Sprintf("%c %s %s", e.Header.Typeflag, e.Header.Name, e.Header.Linkname))
	}
	return names
}

// someEntries makes a layer in which few names meet often.
func someEntries(chance *rand.Rand) []snapshottest.Entry {
	name := func() string {
		name := string('a' + rune(chance.IntN(3)))
		for chance.IntN(2) == 0 {
			name += "/" + string('a'+rune(chance.IntN(3)))
		}
		return name
	}
	hidden := func() string {
		above := ""
		if chance.IntN(2) == 0 {
			above = name() + "/"
		}
		if chance.IntN(4) == 0 {
			return above + ".wh..wh..opq"
		}
		return above + ".wh." + string('a'+rune(chance.IntN(3)))
	}
	var entries []snapshottest.Entry
	if chance.IntN(2) == 0 {
		entries = append(entries, snapshottest.Dir("./").Owned(chance.IntN(3), 0, 0o755))
	}
	for range 1 + chance.IntN(7) {
		var e snapshottest.Entry
		switch chance.IntN(10) {
		case 0, 1, 2:
			e = snapshottest.Dir(name()).Owned(chance.IntN(3), chance.IntN(3), 0o700+chance.Int64N(8))
		case 3, 4, 5:
			e = snapshottest.File(name(), fmt.Sprint(chance.IntN(100)))
		case 6, 7:
			e = snapshottest.File(hidden(), "")
		case 8:
			e = snapshottest.Symlink(name(), "/"+name())
		case 9:
			e = snapshottest.Link(name(), name())
		}
		if chance.IntN(4) == 0 && e.Header.Linkname == "" {
			e = e.With("user.note", fmt.Sprint(chance.IntN(5)))
		}
		entries = append(entries, e)
	}
	return entries
}

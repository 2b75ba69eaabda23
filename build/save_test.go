package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/snapshot"
)

// pinning is a store that is told what the cache needs.
type pinning struct {
	Store
	pinned [][]digest.Digest
}

func (p *pinning) Pin(_ context.Context, chains []digest.Digest) error {
	p.pinned = append(p.pinned, chains)
	return nil
}

// Records that came at the same time are saved together, at the latest when the solver is
// closed; one that was forgotten meanwhile is not.
func TestCacheIsSavedAtTheEnd(t *testing.T) {
	root, store := t.TempDir(), &pinning{}
	failed := func(err error) { t.Error(err) }
	c, err := openCache(t.Context(), root, store, failed)
	if err != nil {
		t.Fatal(err)
	}
	var chains, list []digest.Digest
	for _, name := range []string{"a", "b", "gone"} {
		key, chain := digest.FromString(name), digest.FromString("chain of "+name)
		c.add(keys{exact: key}, name, TypeRegular, []*output{{layers: []Layer{{Chain: chain, DiffID: chain}}}}, time.Time{})
		list, chains = append(list, key), append(chains, chain)
	}
	if err := c.forget(t.Context(), list[2:]); err != nil {
		t.Fatal(err)
	}
	before := len(store.pinned)
	(&Solver{cache: c}).Close()
	want := slices.Sorted(slices.Values(chains[:2]))
	if n := len(store.pinned); n != before+1 || !slices.Equal(store.pinned[n-1], want) {
		t.Errorf("%d times the daemon was told, at last of %v: want once, of %v", n-before, store.pinned[n-1], want)
	}
	files, err := os.ReadDir(filepath.Join(root, "cache"))
	if err != nil || len(files) != 2 {
		t.Errorf("%d records are saved: %v", len(files), err)
	}
	again, err := openCache(t.Context(), root, store, failed)
	if err != nil || len(again.records) != 2 {
		t.Errorf("%d records are there afterwards: %v", len(again.records), err)
	}
}

// going is a store that is asked about a layer just when its record is forgotten.
type going struct {
	pinning
	forget func()
}

func (g *going) Has(context.Context, digest.Digest) (bool, error) {
	g.forget()
	return true, nil
}

func (g *going) View(context.Context, digest.Digest) (snapshot.Mount, error) {
	return snapshot.Mount{}, errors.New("the layer has gone")
}

// A record that is pruned while somebody finds or measures it is gone, and nobody fails.
func TestRecordGoesMeanwhile(t *testing.T) {
	store := &going{}
	c, err := openCache(t.Context(), t.TempDir(), store, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	key := digest.FromString("key")
	store.forget = func() {
		if err := c.forget(t.Context(), []digest.Digest{key}); err != nil {
			t.Error(err)
		}
	}
	add := func() {
		c.add(keys{exact: key}, "key", TypeRegular, []*output{{layers: []Layer{{Chain: key, DiffID: key}}}}, time.Time{})
	}
	add()
	if found := c.find(t.Context(), &keys{exact: key}); found != nil || len(c.list()) != 0 {
		t.Errorf("found %v, and %d records are there", found, len(c.list()))
	}
	add()
	if err := c.measure(t.Context()); err != nil || len(c.list()) != 0 {
		t.Errorf("%d records are there: %v", len(c.list()), err)
	}
}

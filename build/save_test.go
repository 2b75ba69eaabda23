package build

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
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

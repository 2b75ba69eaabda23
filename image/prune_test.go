package image

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
)

type filters = map[string]map[string]bool

func TestPrune(t *testing.T) {
	f := open(t, t.TempDir())
	shared := file{"shared", string(make([]byte, 1<<20))}
	used := f.imported(t, "used:1", shared, file{"a", "1"})
	f.imported(t, "free:1", shared, file{"a", "2"})
	nameless := f.imported(t, "", file{"a", "3"})
	f.Catalog.SetInUse(func() map[digest.Digest][]catalog.Use {
		return map[digest.Digest][]catalog.Use{digest.Digest(used): {{Container: "c"}}}
	})
	before, err := f.Inventory.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before.TotalCount != 4 || before.ActiveCount != 1 || before.Reclaimable <= 1<<20 || before.TotalSize <= before.Reclaimable {
		t.Errorf("%+v", before)
	}
	gone, freed, err := f.Prune(t.Context(), filters{"label": {"none=such": true}})
	if err != nil || len(gone) != 0 || freed != 0 {
		t.Error(gone, freed, err)
	}
	gone, freed, err = f.Prune(t.Context(), nil)
	if err != nil || len(gone) != 1 || gone[0].Deleted != nameless || freed == 0 {
		t.Error(gone, freed, err)
	}
	gone, freed, err = f.Prune(t.Context(), filters{"dangling": {"false": true}})
	if err != nil || freed <= 1<<20 {
		t.Error(gone, freed, err)
	}
	if got := ids(t, f, nil); !slices.Equal(got, []string{"used:1"}) {
		t.Errorf("%v are left", got)
	}
	after, err := f.Inventory.Usage(t.Context())
	if err != nil || after.Reclaimable != 0 || after.TotalCount != 1 {
		t.Errorf("%+v, %v", after, err)
	}
	for _, bad := range []filters{{"x": {"y": true}}, {"dangling": {"perhaps": true}}, {"dangling": {"true": true, "false": true}}, {"until": {"1": true, "2": true}}} {
		if _, _, err := f.Prune(t.Context(), bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestPruneDropsWhatNeverCameWhole(t *testing.T) {
	f := open(t, t.TempDir())
	p, err := f.content.Partial(digest.FromString("x"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	p.WriteAt(make([]byte, 1<<19), 0)
	p.Close()
	if _, freed, err := f.Prune(context.Background(), nil); err != nil || freed < 1<<19 {
		t.Error(freed, err)
	}
}

// An image that comes while others go is not taken from what is given back.
func TestPruneWhileAnotherComes(t *testing.T) {
	f := open(t, t.TempDir())
	f.imported(t, "", file{"a", "1"})
	var once sync.Once
	f.Catalog.SetInUse(func() map[digest.Digest][]catalog.Use {
		once.Do(func() { f.imported(t, "late:1", file{"b", string(make([]byte, 2<<20))}) })
		return nil
	})
	if gone, freed, err := f.Prune(t.Context(), nil); err != nil || len(gone) != 1 || freed <= 0 {
		t.Error(gone, freed, err)
	}
}

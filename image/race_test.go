package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/internal/testutil"
)

// Whatever happens at the same time, an image that has a name is whole.
func TestNamedIsWhole(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	f.imported(t, "a:1", file{"a", "1"}, file{"b", "2"})
	f.imported(t, "b:1", file{"a", "1"}, file{"c", "2"})
	archive := f.saved(t, "a:1", "b:1", "hello")
	expected := func(err error) {
		if err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Conflict) {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for i := range 3 {
		name := fmt.Sprint("x:", i)
		loop := func(do func()) {
			wg.Go(func() {
				for range 15 {
					do()
				}
			})
		}
		loop(func() { expected(f.Load(ctx, bytes.NewReader(archive), LoadOptions{}, nil)) })
		loop(func() { expected(f.Tag(ctx, "a:1", name)) })
		loop(func() {
			_, err := f.Remove(ctx, []string{"a:1", "b:1", name, "hello"}[i], RemoveOptions{Force: true})
			expected(err)
		})
		loop(func() {
			img, err := f.Catalog.Resolve(ctx, []string{"a:1", "b:1", name}[i])
			if err == nil {
				_, err = f.Catalog.Unpacked(ctx, img)
			}
			expected(err)
		})
		loop(func() {
			var saved bytes.Buffer
			expected(f.Save(ctx, &saved, []string{"b:1"}, SaveOptions{}))
			_, err := f.Inventory.List(ctx, inventory.ListOptions{Manifests: true})
			expected(err)
		})
	}
	wg.Wait()
	for _, e := range f.content.Index().Entries() {
		missing := func(d ocispec.Descriptor, _ int64) error {
			n, err := f.content.Node(d)
			if err != nil {
				return nil //nolint:nilerr // not a node
			}
			for _, c := range n.Children() {
				if _, ok := f.content.Size(c.Digest); !ok {
					t.Errorf("%s lacks %s", e.Name, c.Digest)
				}
			}
			return nil
		}
		if err := f.content.Walk(e.Target, missing); err != nil {
			t.Error(err)
		}
		for _, m := range f.Catalog.Members(e.Target) {
			if m.Detail == nil || !m.Available {
				t.Errorf("%s has a manifest that is not whole: %+v", e.Name, m)
			} else if platform.Matches(platform.Host(), m.Platform) && !f.layers.Has(m.Detail.Chain()) {
				t.Errorf("%s is not unpacked", e.Name)
			}
		}
	}
}

// Pulls of images that share layers, given up at any point while others join and
// leave, with removals and prunes in between, never wait for each other for ever,
// and leave nothing under way.
func TestPullsAtOnce(t *testing.T) {
	testutil.RequireRoot(t)
	l := newLiar(t)
	var layers []ocispec.Descriptor
	for i := range 5 {
		layers = append(layers, l.blob(ocispec.MediaTypeImageLayer, rootfs(t, file{fmt.Sprint("f", i), strings.Repeat(fmt.Sprint(i), 200_000)})))
	}
	tags := []string{"0", "1", "2", "3", "4"}
	for i, tag := range tags { // each begins elsewhere, and has a layer twice
		l.image(tag, append(slices.Concat(layers[i:], layers[:i]), layers[i])...)
	}
	f, tr := transfers(t, t.TempDir())
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			random := rand.New(rand.NewSource(int64(worker)))
			for range 25 {
				ref := l.host + "/a:" + tags[random.Intn(len(tags))]
				switch random.Intn(6) {
				case 0:
					if _, err := f.Remove(t.Context(), ref, RemoveOptions{}); err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Conflict) {
						t.Error(err)
					}
				case 1:
					if _, _, err := f.Prune(t.Context(), map[string]map[string]bool{"dangling": {"false": true}}); err != nil {
						t.Error(err)
					}
				default:
					ctx, cancel := context.WithCancel(t.Context())
					left := random.Intn(40)
					err := tr.Pull(ctx, ref, PullOptions{}, func(Progress) {
						if left--; left == 0 {
							cancel()
						}
					})
					if err != nil && !errors.Is(err, context.Canceled) {
						t.Errorf("%s: %v", ref, err)
					}
					cancel()
				}
			}
		})
	}
	wg.Wait()
	for _, tag := range tags {
		if err := tr.Pull(t.Context(), l.host+"/a:"+tag, PullOptions{}, func(Progress) {}); err != nil {
			t.Error(err)
		}
	}
	for _, e := range f.content.Index().Entries() {
		for _, m := range f.Catalog.Members(e.Target) {
			if !m.Available || !f.layers.Has(m.Detail.Chain()) {
				t.Errorf("%s is not whole", e.Name)
			}
		}
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, of := range []string{"download.(*download)", "image.(*pull)", "content.(*Partial)", "unpack.(*Stack)"} {
		if bytes.Contains(stacks, []byte(of)) {
			t.Errorf("a goroutine of %s is left:\n%s", of, stacks)
		}
	}
}

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
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
			img, err := f.Resolve(ctx, []string{"a:1", "b:1", name}[i])
			if err == nil {
				_, err = f.Unpacked(ctx, img)
			}
			expected(err)
		})
		loop(func() {
			var saved bytes.Buffer
			expected(f.Save(ctx, &saved, []string{"b:1"}, SaveOptions{}))
			_, err := f.List(ctx, ListOptions{Manifests: true})
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
		for _, m := range f.members(e.Target) {
			if m.detail == nil || !m.available {
				t.Errorf("%s has a manifest that is not whole: %+v", e.Name, m)
			} else if matches(host(), m.platform) && !f.layers.Has(m.detail.chain()) {
				t.Errorf("%s is not unpacked", e.Name)
			}
		}
	}
}

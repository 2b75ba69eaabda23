package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/snapshot"
)

func open(t *testing.T, driver string) *Unpacker {
	t.Helper()
	testutil.RequireRoot(t)
	root := t.TempDir()
	store, err := content.Open(filepath.Join(root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Hold()) // nobody names the blobs
	layers, err := snapshot.Open(filepath.Join(root, "snapshot"), driver)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { layers.Close() })
	return New(store, layers)
}

// layer stores a layer of one file.
func (u *Unpacker) layer(t *testing.T, name string) ocispec.Descriptor {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(1e9, 0)}), w.Close()); err != nil {
		t.Fatal(err)
	}
	d, err := u.content.Put(buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(buf.Len())}
}

// The layers are unpacked whatever order their bytes come in, and each takes its
// place on the one below.
func TestStack(t *testing.T) {
	for _, driver := range []string{snapshot.Overlay, snapshot.VFS} {
		u := open(t, driver)
		layers := []ocispec.Descriptor{u.layer(t, "a"), u.layer(t, "b")}
		diffIDs := []digest.Digest{layers[0].Digest, layers[1].Digest}
		stack, upper := u.Stack(layers, diffIDs), make(chan struct{})
		top := snapshot.ChainID(diffIDs[0], diffIDs[1])
		if stack.Has(0) || stack.Has(1) {
			t.Fatal("there are layers in an empty store")
		}
		var g errgroup.Group
		g.Go(func() error { // the lower one's bytes do not come before the upper's
			return stack.Unpack(t.Context(), 0, func(ctx context.Context) (io.Reader, func(), error) {
				if u.layers.Independent() {
					<-upper
				}
				return u.Stored(layers[0])(ctx)
			})
		})
		g.Go(func() error {
			return stack.Unpack(t.Context(), 1, func(ctx context.Context) (io.Reader, func(), error) {
				r, done, err := u.Stored(layers[1])(ctx)
				return r, func() { done(); close(upper) }, err
			})
		})
		if err := g.Wait(); err != nil || !u.layers.Has(top) {
			t.Errorf("%s: %v", driver, err)
		}
		if err := u.Unpack(t.Context(), layers, diffIDs); err != nil { // all are there
			t.Errorf("%s: %v", driver, err)
		}
		if len(u.turns) > 0 {
			t.Errorf("%s: %d turns are taken", driver, len(u.turns))
		}
	}
}

// A layer that is not what the image promises is none, and what waits for it does
// not wait for ever.
func TestWrongLayer(t *testing.T) {
	u := open(t, snapshot.Overlay)
	layers := []ocispec.Descriptor{u.layer(t, "a"), u.layer(t, "b")}
	wrong := digest.FromString("something else")
	if err := u.Unpack(t.Context(), layers, []digest.Digest{wrong, layers[1].Digest}); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if u.layers.Has(wrong) || len(u.turns) > 0 {
		t.Errorf("the layer is there: %v; %d turns are taken", u.layers.Has(wrong), len(u.turns))
	}
	layers[0].MediaType = "application/json"
	if err := u.Unpack(t.Context(), layers[:1], []digest.Digest{layers[0].Digest}); !errors.Is(err, fault.NotImplemented) {
		t.Error(err)
	}
}

package image

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/inventory"
)

// FuzzConfig gives an image without layers, or with one that is not here, a
// config of any bytes. It can be asked for whatever users ask.
func FuzzConfig(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	for _, config := range []string{
		`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{"Cmd":["sh"],"Env":["A=b","B"],"Labels":{"a":"b"},"ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}}}}`,
		`{"created":"2026-01-01T00:00:00Z","history":[{"created_by":"x","empty_layer":true},{"comment":"y"}],"rootfs":{"diff_ids":["sha256:` + digest.FromString("x").Encoded() + `"]}}`,
		`{"config":{"Healthcheck":{"Test":["CMD","x"],"Interval":-1},"StopSignal":"SIGKILL","User":"0:0","WorkingDir":"relative"}}`,
		`{"rootfs":{"diff_ids":["nothing","sha256:","sha512:00"]}}`, `null`, `[]`, `{"config":null,"rootfs":null,"history":null}`,
		`{"os":"windows","os.version":"10","os.features":["x"],"variant":"v8"}`,
	} {
		f.Add([]byte(config), false)
		f.Add([]byte(config), true)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, config []byte, layer bool) {
		s, err := tryOpen(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.layers.Close()
		ctx := context.Background()
		d, err := s.content.Put(config)
		if err != nil {
			t.Fatal(err)
		}
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: d, Size: int64(len(config))}}
		if layer {
			m.Layers = []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("x"), Size: 1}}
		}
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		id, err := s.content.Put(data)
		if err != nil {
			t.Fatal(err)
		}
		target := ocispec.Descriptor{MediaType: m.MediaType, Digest: id, Size: int64(len(data))}
		const name = "docker.io/library/fuzzed:latest"
		if err := s.content.Update(func(ix *content.Index) (*content.Index, error) {
			return ix.With(content.Entry{Name: name, Target: target, Updated: time.Now()}), nil
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Inventory.List(ctx, inventory.ListOptions{Manifests: true, SharedSize: true}); err != nil {
			t.Error(err)
		}
		// What cannot be used is so by its own fault, or for want of the layer.
		for what, err := range map[string]error{"inspect": second(s.Inventory.Inspect(ctx, name, inventory.InspectOptions{})), "history": second(s.Inventory.History(ctx, name, "")),
			"resolve": second(s.Catalog.Resolve(ctx, name)), "usage": second(s.Inventory.Usage(ctx))} {
			if err != nil && !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.NotFound) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if img, err := s.Catalog.Resolve(ctx, name); err == nil && !layer {
			if _, err := s.Catalog.Unpacked(ctx, img); err != nil && !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.NotFound) {
				t.Errorf("unpack: %v", err)
			}
		}
		if _, err := s.Remove(ctx, name, RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

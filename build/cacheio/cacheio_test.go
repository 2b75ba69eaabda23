package cacheio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

// memory is a place of documents.
type memory map[digest.Digest][]byte

func (m memory) Document(_ context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	data, ok := m[d.Digest]
	if !ok {
		return nil, fault.New(fault.NotFound, "no %s", d.Digest)
	}
	return data, nil
}

func (m memory) put(mediaType string, text []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	m[d.Digest] = text
	return d
}

func layer(name string) Layer {
	return Layer{Blob: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("blob" + name), Size: 10},
		DiffID: digest.FromString(name), Created: time.Unix(1, 2).UTC()}
}

func some() []Record {
	a, b, c := layer("a"), layer("b"), layer("c")
	return []Record{
		{Key: digest.FromString("1"), Layers: []Layer{a, b}, Blobs: true},
		{Key: digest.FromString("2"), Exact: digest.FromString("3"), Layers: []Layer{a, c}, Blobs: true},
		{Key: digest.FromString("4"), Layers: []Layer{{DiffID: a.DiffID}, {DiffID: digest.FromString("nowhere")}}},
	}
}

// What is written in each form is read again.
func TestForms(t *testing.T) {
	for _, f := range []Form{{true, true}, {false, true}, {false, false}} {
		m := memory{}
		text, blobs, err := Write(some())
		if err != nil || len(blobs) != 3 {
			t.Fatal(blobs, err)
		}
		d, head, err := f.Manifest(m.put(MediaType, text), blobs)
		if err != nil {
			t.Fatal(err)
		}
		m[d.Digest] = head
		c, err := Read(t.Context(), m, d)
		if err != nil || c.Len() != 3 {
			t.Fatalf("%+v: %v", f, err)
		}
		for _, want := range some() {
			got, ok := c.Lookup(want.Key)
			if !ok || got.Exact != want.Exact || got.Blobs != want.Blobs || len(got.Layers) != len(want.Layers) {
				t.Fatalf("%+v: %+v, want %+v", f, got, want)
			}
			for i, l := range want.Layers {
				if g := got.Layers[i]; g.DiffID != l.DiffID || g.Blob.Digest != l.Blob.Digest || !g.Created.Equal(l.Created) {
					t.Errorf("%+v: layer %d is %+v, want %+v", f, i, g, l)
				}
			}
		}
	}
	if _, _, err := (Form{ImageManifest: true}).Manifest(ocispec.Descriptor{}, nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("a manifest of Docker's types: %v", err)
	}
}

// An image has its own layers by number, in whatever order, and the names of others.
func TestInline(t *testing.T) {
	records := append(some(), Record{Key: digest.FromString("5"), Layers: []Layer{{DiffID: layer("b").DiffID}}})
	image := []Layer{layer("a"), layer("b")}
	text, err := Inline(records, diffIDs(image))
	if err != nil {
		t.Fatal(err)
	}
	m := memory{}
	config, err := json.Marshal(map[string]any{"rootfs": map[string]any{"diff_ids": diffIDs(image)}, "moby.buildkit.cache.v0": text})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(ocispec.Manifest{Config: m.put(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{image[0].Blob, image[1].Blob}})
	if err != nil {
		t.Fatal(err)
	}
	index, err := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{m.put(ocispec.MediaTypeImageManifest, manifest)}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Read(t.Context(), m, m.put(ocispec.MediaTypeImageIndex, index))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"1": "true 2", "2": "false 2", "4": "false 2", "5": "true 1", "6": "false 0"} {
		r, _ := c.Lookup(digest.FromString(key))
		if got := fmt.Sprint(r.Blobs, len(r.Layers)); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}

// A config with a record of BuildKit's, which stands on another, is read, and what
// points nowhere is not found.
func TestHostile(t *testing.T) {
	good := layer("a")
	blobs := []ocispec.Descriptor{{MediaType: good.Blob.MediaType, Digest: good.Blob.Digest, Size: 1, Annotations: map[string]string{annotationDiffID: good.DiffID.String()}},
		{Digest: digest.FromString("bare"), Size: 1}}
	key := digest.FromString("k")
	find := func(config string) (string, error) {
		m := memory{}
		config = strings.NewReplacer("KEY", key.String(), "GOOD", good.Blob.Digest.String(), "BARE", blobs[1].Digest.String(), "DIFF", good.DiffID.String()).Replace(config)
		d, head, err := Form{OCI: true}.Manifest(m.put(MediaType, []byte(config)), blobs)
		if err != nil {
			t.Fatal(err)
		}
		m[d.Digest] = head
		c, err := Read(t.Context(), m, d)
		if err != nil {
			return "", err
		}
		r, ok := c.Lookup(key)
		return fmt.Sprint(ok, len(r.Layers)), nil
	}
	for config, want := range map[string]string{
		`{"layers":[{"blob":"GOOD","parent":-1}],"records":[{"digest":"KEY","layers":[{"layer":0}],"inputs":[[{"selector":"s","link":0}]]}]}`: "true 1",
		`{"layers":[{"blob":"GOOD"}],"records":[{"digest":"KEY","layers":[{"layer":0}]}]}`:                                                    "false 0", // on itself
		`{"layers":[{"blob":"GOOD","parent":7}],"records":[{"digest":"KEY","layers":[{"layer":0}]}]}`:                                         "false 0",
		`{"layers":[{"blob":"GOOD","parent":-2}],"records":[{"digest":"KEY","layers":[{"layer":0}]}]}`:                                        "false 0",
		`{"layers":[{"blob":"GOOD","parent":-1}],"records":[{"digest":"KEY","layers":[{"layer":1},{"layer":-1}]}]}`:                           "false 0",
		`{"layers":[{"blob":"GOOD","parent":-1}],"records":[{"digest":"KEY","chains":[{"layers":[0,9]},{"layers":[]},{"layers":[0,0]}]}]}`:    "true 2",
		`{"layers":[{"blob":"BARE","parent":-1}],"records":[{"digest":"KEY","layers":[{"layer":0}]}]}`:                                        "false 0", // no DiffID
		`{"layers":[{"blob":"sha256:no","parent":-1}],"records":[{"digest":"KEY","layers":[{"layer":0}]}]}`:                                   "false 0",
		`{"records":[{"digest":"KEY","tare.diffIDs":["DIFF","../../x"]}]}`:                                                                    "false 0",
		`{"records":[{"digest":"KEY","tare.diffIDs":["DIFF"]}]}`:                                                                              "true 1",
		`{}`: "false 0",
	} {
		if got, err := find(config); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", config, got, err, want)
		}
	}
	for _, config := range []string{`[]`, `{"layers":7}`, "\x00", `{"records":[` + strings.Repeat(`{},`, maxRecords) + `{}]}`} {
		if _, err := find(config); !errors.Is(err, fault.Invalid) {
			t.Errorf("%.40s: %v", config, err)
		}
	}
	big := ocispec.Descriptor{Digest: key, Size: MaxDocument + 1}
	if _, err := Read(t.Context(), memory{}, big); !errors.Is(err, fault.Invalid) {
		t.Errorf("a manifest that is too large: %v", err)
	}
	// An index of indexes of itself does not go round.
	m := memory{}
	ring := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: key}
	m[key] = []byte(`{"manifests":[{"mediaType":"` + ocispec.MediaTypeImageIndex + `","digest":"` + key.String() + `"}]}`)
	if c, err := Read(t.Context(), m, ring); err != nil || c.Len() != 0 {
		t.Errorf("a ring: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	text, blobs, err := Write(some())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, config []byte) {
		m := memory{}
		d, head, err := Form{OCI: true, ImageManifest: true}.Manifest(m.put(MediaType, bytes.Clone(config)), blobs)
		if err != nil {
			t.Fatal(err)
		}
		m[d.Digest] = head
		c, err := Read(t.Context(), m, d)
		if err != nil {
			return
		}
		for key := range c.records {
			r, ok := c.Lookup(key)
			for _, l := range r.Layers {
				if !ok || l.DiffID.Validate() != nil || r.Blobs && l.Blob.Digest.Validate() != nil {
					t.Errorf("%s came to %+v", key, r)
				}
			}
		}
	})
}

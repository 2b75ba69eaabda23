package content

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d, err := s.Put(data)
	if err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// image stores a manifest over one layer and gives it the name.
func image(t *testing.T, s *Store, name, layer string) (manifest, blob ocispec.Descriptor) {
	t.Helper()
	blob = put(t, s, ocispec.MediaTypeImageLayer, []byte(layer))
	m := ocispec.Manifest{Config: put(t, s, ocispec.MediaTypeImageConfig, []byte("{}")), Layers: []ocispec.Descriptor{blob}}
	data, _ := json.Marshal(m)
	manifest = put(t, s, ocispec.MediaTypeImageManifest, data)
	if err := s.Update(func(ix *Index) (*Index, error) { return ix.With(Entry{Name: name, Target: manifest}), nil }); err != nil {
		t.Fatal(err)
	}
	return manifest, blob
}

func TestIngestVerifies(t *testing.T) {
	s := open(t, t.TempDir())
	d := digest.FromString("right")
	if _, err := s.Ingest(strings.NewReader("wrong"), d, -1); !errors.Is(err, fault.Invalid) {
		t.Errorf("a wrong digest: %v", err)
	}
	if _, err := s.Ingest(strings.NewReader("right"), d, 4); !errors.Is(err, fault.Invalid) {
		t.Errorf("a wrong size: %v", err)
	}
	if _, ok := s.Size(d); ok {
		t.Error("a refused blob is in the store")
	}
	if left, _ := os.ReadDir(s.path("ingest")); len(left) != 0 {
		t.Errorf("ingest/ holds %v", left)
	}
	if n, err := s.Ingest(strings.NewReader("right"), d, 5); err != nil || n != 5 {
		t.Error(n, err)
	}
	if data, err := s.Read(d, 100); string(data) != "right" || err != nil {
		t.Error(string(data), err)
	}
}

func TestDamagedBlobIsNoticedAndHealed(t *testing.T) {
	s := open(t, t.TempDir())
	d, _ := s.Put([]byte("good content"))
	path, _ := s.blobPath(d)
	for _, bad := range []string{"evil content", "good"} {
		os.Remove(path)
		os.WriteFile(path, []byte(bad), 0o444)
		if _, err := s.Read(d, 100); err == nil {
			t.Errorf("%q was read", bad)
		}
		f, _, _ := s.Open(d)
		if _, err := io.ReadAll(Verify(f, d)); err == nil {
			t.Errorf("%q was verified", bad)
		}
		f.Close()
	}
	s.Put([]byte("good content"))
	if _, err := s.Read(d, 100); err != nil {
		t.Error(err)
	}
}

func TestIndexSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	m, _ := image(t, s, "docker.io/library/a:1", "layer a")
	m.Annotations = map[string]string{"org.example": "kept"}
	image(t, s, "docker.io/library/b:1", "layer b")
	if err := s.Update(func(ix *Index) (*Index, error) { return ix.With(Entry{Name: "docker.io/library/b:1", Target: m}), nil }); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if n := len(s.Index().Entries()); n != 3 {
		t.Errorf("%d entries instead of two names and the image that lost its own", n)
	}
	e, ok := s.Index().Lookup("docker.io/library/b:1")
	if !ok || e.Target.Digest != m.Digest || len(e.Target.Annotations) != 1 || e.Target.Annotations["org.example"] != "kept" {
		t.Errorf("b is %+v", e)
	}
	var doc ocispec.Index
	data, _ := os.ReadFile(filepath.Join(dir, "index.json"))
	if err := json.Unmarshal(data, &doc); err != nil || doc.Manifests[2].Annotations[AnnotationName] != "docker.io/library/b:1" || doc.Manifests[2].Annotations[AnnotationRefName] != "1" {
		t.Errorf("index.json is %s, %v", data, err)
	}
}

func TestOpenRefusesWhatItDoesNotKnow(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	os.WriteFile(dir+"/oci-layout", []byte(`{"imageLayoutVersion":"9.0.0"}`), 0o644)
	if _, err := Open(dir); err == nil {
		t.Error("a layout of version 9 was opened")
	}
}

// What is attached to an image is kept for as long as the image is.
func TestAttached(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	m, _ := image(t, s, "docker.io/library/a:1", "layer")
	note := put(t, s, ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"artifactType":"note"}`))
	stray := put(t, s, ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"artifactType":"stray"}`))
	update := func(change func(*Index) *Index) {
		t.Helper()
		if err := s.Update(func(ix *Index) (*Index, error) { return change(ix), nil }); err != nil {
			t.Fatal(err)
		}
		if err := s.Collect(); err != nil {
			t.Fatal(err)
		}
	}
	update(func(ix *Index) *Index {
		return ix.Attach(m.Digest, "", false, note).Attach(m.Digest, "r", false, note).Attach(note.Digest, "r", false, stray)
	})
	s = open(t, dir)
	update(func(ix *Index) *Index { return ix.With(Entry{Name: "docker.io/library/b:1", Target: m}) })
	update(func(ix *Index) *Index { return ix.Without("docker.io/library/a:1", m.Digest, false) })
	if got := s.Index().Attached(m.Digest); len(got) != 1 || got[0].Digest != note.Digest || len(got[0].Annotations) != 0 {
		t.Errorf("%+v is attached", got)
	}
	if _, ok := s.Size(note.Digest); !ok || len(s.Index().Entries()) != 1 {
		t.Error("the attached is gone, or an entry of its own")
	}
	update(func(ix *Index) *Index { return ix.Without("docker.io/library/b:1", m.Digest, false) })
	for _, d := range []ocispec.Descriptor{note, stray} {
		if _, ok := s.Size(d.Digest); ok || len(s.Index().Attached(m.Digest)) != 0 {
			t.Error("what was attached stays")
		}
	}
}

// What is attached follows the repository that it is from, when that was heard
// to its end.
func TestAttachedFollows(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	m, _ := image(t, s, "docker.io/library/a:1", "layer")
	other, _ := image(t, s, "docker.io/library/b:1", "another")
	blob := func(text string) ocispec.Descriptor {
		return put(t, s, ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"artifactType":"`+text+`"}`))
	}
	one, two, old := blob("one"), blob("two"), blob("old")
	attach := func(want int, to ocispec.Descriptor, from string, whole bool, list ...ocispec.Descriptor) {
		t.Helper()
		if err := s.Update(func(ix *Index) (*Index, error) { return ix.Attach(to.Digest, from, whole, list...), nil }); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
		if got := s.Index().Attached(m.Digest); len(got) != want {
			t.Errorf("%d are attached, want %d: %v", len(got), want, got)
		}
	}
	attach(1, m, "", false, old) // of a store that does not know from where
	attach(3, m, "here", false, one, two)
	attach(2, m, "there", true, two)
	attach(2, m, "here", true, one)
	attach(2, other, "here", true)
	attach(2, m, "here", false)
	attach(1, m, "here", true)
	attach(0, m, "there", true)
}

func TestFormat(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	path := dir + "/" + formatFile
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path) // as an early daemon left it
	open(t, dir)
	if again, _ := os.ReadFile(path); string(again) != string(first) {
		t.Errorf("%s instead of %s", again, first)
	}
	for _, bad := range []string{`{"version":99}`, `{"version":`, `{"version":-1}`} {
		os.WriteFile(path, []byte(bad), 0o644)
		if _, err := Open(dir); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestCollect(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, kept := image(t, s, "docker.io/library/a:1", "kept")
	m, gone := image(t, s, "docker.io/library/b:1", "gone")
	crashed, _ := s.Put([]byte("written before a crash"))
	if err := s.Update(func(ix *Index) (*Index, error) { return ix.Without("docker.io/library/b:1", m.Digest, false), nil }); err != nil {
		t.Fatal(err)
	}
	release := s.Hold()
	if err := s.Collect(); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Size(gone.Digest); !ok {
		t.Error("content was collected while it was held")
	}
	release()
	release()
	for d, want := range map[digest.Digest]bool{kept.Digest: true, gone.Digest: false, m.Digest: false, crashed: false} {
		if _, ok := s.Size(d); ok != want {
			t.Errorf("%s is there: %v", d, ok)
		}
	}
}

func TestCollectSparesAllWhenAManifestIsDamaged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	m, layer := image(t, s, "docker.io/library/a:1", "layer")
	path, _ := s.blobPath(m.Digest)
	os.Chmod(path, 0o644)
	os.WriteFile(path, []byte("{"), 0o644)
	s = open(t, dir)
	if err := s.Collect(); err == nil {
		t.Error("no error")
	}
	if _, ok := s.Size(layer.Digest); !ok {
		t.Error("the layer was collected")
	}
}

// What cannot be looked at just now is not taken for missing.
func TestCollectSparesAllWhenABlobCannotBeLookedAt(t *testing.T) {
	s := open(t, t.TempDir())
	m, layer := image(t, s, "docker.io/library/a:1", "layer")
	path, _ := s.blobPath(m.Digest)
	if err := errors.Join(os.Remove(path), os.Symlink(path, path)); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(); err == nil {
		t.Error("no error")
	}
	if _, ok := s.Size(layer.Digest); !ok {
		t.Error("the layer was collected")
	}
}

func TestOpenDropsWhatWasBeingWritten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	w, err := s.Create("")
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("half"))
	os.WriteFile(dir+"/.index.json.tmp123", []byte("half"), 0o600)
	open(t, dir)
	if left, _ := filepath.Glob(dir + "/.index*"); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	if left, _ := os.ReadDir(dir + "/ingest"); len(left) != 0 {
		t.Errorf("ingest/ holds %v", left)
	}
}

func TestWalkEndsOnDeepNesting(t *testing.T) {
	s := open(t, t.TempDir())
	d := put(t, s, ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2}`))
	for range 20 {
		data, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{d}})
		d = put(t, s, ocispec.MediaTypeImageIndex, data)
	}
	if err := s.Walk(d, func(ocispec.Descriptor, int64) error { return nil }); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// An image may name another one's content and call it what it is not: that
// other image stays whole.
func TestContentUnderAFalseType(t *testing.T) {
	s := open(t, t.TempDir())
	child, layer := image(t, s, "docker.io/library/child:1", "layer")
	data, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{child}})
	index := put(t, s, ocispec.MediaTypeImageIndex, data)
	asLayer, asManifest := index, index
	asLayer.MediaType, asManifest.MediaType = ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageManifest
	data, _ = json.Marshal(ocispec.Manifest{Config: put(t, s, ocispec.MediaTypeImageConfig, []byte("{}")), Layers: []ocispec.Descriptor{asLayer}})
	hostile := put(t, s, ocispec.MediaTypeImageManifest, data)
	err := s.Update(func(ix *Index) (*Index, error) {
		return newIndex([]Entry{{Name: "docker.io/library/hostile:1", Target: hostile}, {Name: "docker.io/library/good:1", Target: index}}), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []ocispec.Descriptor{index, child, layer} {
		if _, ok := s.Size(d.Digest); !ok {
			t.Errorf("%s was collected", d.MediaType)
		}
	}
	if _, err := s.Node(asManifest); !errors.Is(err, fault.Invalid) {
		t.Errorf("an index was read as a manifest: %v", err)
	}
	if n, err := s.Node(index); err != nil || n.Index == nil {
		t.Errorf("%+v, %v", n, err)
	}
}

// An image that calls a layer a manifest, or nests too deep, keeps nothing from
// being collected but itself.
func TestCollectOfAFalseManifest(t *testing.T) {
	s := open(t, t.TempDir())
	_, layer := image(t, s, "docker.io/library/good:1", "layer")
	called := layer
	called.MediaType = ocispec.MediaTypeImageManifest
	data, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{called}})
	hostile := put(t, s, ocispec.MediaTypeImageIndex, data)
	deep := put(t, s, ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2}`))
	for range 20 {
		data, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{deep}})
		deep = put(t, s, ocispec.MediaTypeImageIndex, data)
	}
	gone, _ := s.Put([]byte("of no image"))
	err := s.Update(func(ix *Index) (*Index, error) {
		return ix.With(Entry{Name: "docker.io/library/hostile:1", Target: hostile}, Entry{Name: "docker.io/library/deep:1", Target: deep}), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(); err != nil {
		t.Fatal(err)
	}
	for d, want := range map[digest.Digest]bool{layer.Digest: true, hostile.Digest: true, deep.Digest: true, gone: false} {
		if _, ok := s.Size(d); ok != want {
			t.Errorf("%s is there: %v", d, ok)
		}
	}
}

// What was written without a sync is synced before it counts as durable,
// whoever wrote it.
func TestSyncContent(t *testing.T) {
	s := open(t, t.TempDir())
	m, layer := image(t, s, "docker.io/library/a:1", "layer")
	if err := s.Keep(digest.FromString("x"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, unsynced := s.unsynced.Load(digest.FromString("x")); unsynced {
		t.Error("what is kept counts as not synced")
	}
	if _, unsynced := s.unsynced.Load(layer.Digest); !unsynced {
		t.Error("what is put counts as synced")
	}
	if err := s.SyncContent(m); err != nil {
		t.Fatal(err)
	}
	s.unsynced.Range(func(d, _ any) bool {
		t.Errorf("%s was not synced", d)
		return true
	})
}

func TestNegativeSize(t *testing.T) {
	s := open(t, t.TempDir())
	data, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{{Digest: digest.FromString("x"), Size: -1}}})
	if _, err := s.Node(put(t, s, ocispec.MediaTypeImageIndex, data)); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestIndexWith(t *testing.T) {
	target := func(s string) ocispec.Descriptor { return ocispec.Descriptor{Digest: digest.FromString(s)} }
	entry := func(name, to string) Entry { return Entry{Name: name, Target: target(to)} }
	ix := newIndex(nil).With(entry("a", "1"), entry("b", "1"), entry("c", "2"), entry("", "3"), entry("", "1"), entry("d", "4"), entry("d", "5"))
	ix = ix.With(entry("a", "2"), entry("c", "1"), entry("e", "3"), entry("d", "4"))
	var got []string
	for _, e := range ix.Entries() {
		got = append(got, e.Name+string(e.Target.Digest.Encoded()[0]))
	}
	want := []string{}
	for _, e := range []Entry{entry("b", "1"), entry("", "5"), entry("a", "2"), entry("c", "1"), entry("e", "3"), entry("d", "4")} {
		want = append(want, e.Name+string(e.Target.Digest.Encoded()[0]))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v instead of %v", got, want)
	}
	many := make([]Entry, 200_000)
	for i := range many {
		many[i] = entry(fmt.Sprint(i), fmt.Sprint(i))
	}
	if n := len(newIndex(nil).With(many...).Entries()); n != len(many) {
		t.Error(n)
	}
}

func TestForget(t *testing.T) {
	s := open(t, t.TempDir())
	m, layer := image(t, s, "docker.io/library/a:1", "layer")
	data, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{m}})
	index := put(t, s, ocispec.MediaTypeImageIndex, data)
	if err := s.Update(func(ix *Index) (*Index, error) {
		return ix.With(Entry{Name: "docker.io/library/a:1", Target: index}).Without("", m.Digest, false), nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Node(m); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Forget(m.Digest), s.Forget(m.Digest), s.Collect()); err != nil {
		t.Fatal(err)
	}
	for d, want := range map[digest.Digest]bool{index.Digest: true, m.Digest: false, layer.Digest: false} {
		if _, ok := s.Size(d); ok != want {
			t.Errorf("%s is there: %v", d, ok)
		}
	}
	if _, err := s.Node(m); !errors.Is(err, fault.NotFound) {
		t.Errorf("the manifest that was forgotten: %v", err)
	}
}

// Who holds the store goes on reading what is forgotten meanwhile; for others it
// is missing, and what is written anew stays.
func TestForgetWhileHeld(t *testing.T) {
	s := open(t, t.TempDir())
	m, _ := image(t, s, "docker.io/library/a:1", "one")
	again, _ := image(t, s, "docker.io/library/b:1", "two")
	data, err := s.Read(again.Digest, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	release := s.Hold()
	for _, d := range []ocispec.Descriptor{m, again} {
		if err := s.Forget(d.Digest); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(d.Digest, 1<<20); err != nil {
			t.Errorf("who holds the store: %v", err)
		}
		_, here := s.Size(d.Digest)
		if _, err := s.Node(d); here || !errors.Is(err, fault.NotFound) {
			t.Errorf("who looks for it finds it: %v, %v", here, err)
		}
	}
	if err := s.Keep(again.Digest, data); err != nil {
		t.Fatal(err)
	}
	release()
	if _, _, err := s.Open(m.Digest); !errors.Is(err, fault.NotFound) {
		t.Errorf("it outlives the last hold: %v", err)
	}
	if _, err := s.Node(again); err != nil {
		t.Errorf("what was written anew: %v", err)
	}
}

// A blob that was not there when it was forgotten, and is fetched meanwhile, stays.
func TestForgetWhatIsFetched(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Hold()()
	data := noise(2 * keptFrom)
	d := digest.FromBytes(data)
	if err := s.Forget(d); err != nil {
		t.Fatal(err)
	}
	p := partial(t, s, data)
	if _, err := p.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Verify(t.Context()), p.Commit(), p.Close()); err != nil {
		t.Fatal(err)
	}
	if _, here := s.Size(d); !here {
		t.Error("it counts as missing")
	}
}

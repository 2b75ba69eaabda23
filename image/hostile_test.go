package image

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/internal/testutil"
)

// liar is a registry that has what it is told to have, whatever that is.
type liar struct {
	host string

	mu        sync.Mutex
	manifests map[string][]byte // by tag and by digest
	types     map[string]string
	blobs     map[digest.Digest][]byte
	asked     map[digest.Digest]int
}

func newLiar(t *testing.T) *liar {
	l := &liar{manifests: map[string][]byte{}, types: map[string]string{}, blobs: map[digest.Digest][]byte{}, asked: map[digest.Digest]int{}}
	s := httptest.NewServer(l)
	t.Cleanup(s.Close)
	l.host = s.Listener.Addr().String()
	return l
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := path.Base(r.URL.Path)
	data, ok := l.manifests[last]
	switch {
	case r.URL.Path == "/v2/":
		return
	case strings.Contains(r.URL.Path, "/manifests/") && ok:
		w.Header().Set("Content-Type", l.types[last])
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
	case strings.Contains(r.URL.Path, "/blobs/") && l.blobs[digest.Digest(last)] != nil:
		data = l.blobs[digest.Digest(last)]
		l.asked[digest.Digest(last)]++
		w.(http.Flusher).Flush() // without a length
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if r.Method == http.MethodGet {
		w.Write(data)
	}
}

func (l *liar) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	l.blobs[d.Digest] = data
	return d
}

// manifest publishes v under a tag, too, unless that is "".
func (l *liar) manifest(tag, mediaType string, v any) ocispec.Descriptor {
	data, _ := json.Marshal(v)
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	for _, name := range []string{tag, d.Digest.String()} {
		l.manifests[name], l.types[name] = data, mediaType
	}
	return d
}

// image publishes an image of layers, whose digests are taken to be their
// DiffIDs.
func (l *liar) image(tag string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	config := ocispec.Image{Platform: platform.Host(), RootFS: ocispec.RootFS{Type: "layers"}}
	for _, d := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest)
	}
	data, _ := json.Marshal(config)
	return l.manifest(tag, ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		Config: l.blob(ocispec.MediaTypeImageConfig, data), Layers: layers})
}

// What a registry says to be absurdly large is refused before it costs memory,
// disk or time, and leaves nothing.
func TestPullOfAbsurdities(t *testing.T) {
	testutil.RequireRoot(t)
	l := newLiar(t)
	layer := l.blob(ocispec.MediaTypeImageLayer, rootfs(t, file{"a", "1"}))
	huge, odd := layer, layer
	huge.Size, odd.MediaType = 1<<62, ocispec.MediaTypeImageLayer+"+rot13"
	l.image("huge", huge)
	l.image("odd", odd)
	good := l.image("good", layer)
	wrong := good
	wrong.Size++
	l.manifest("wrong", ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{wrong}})
	wide := good
	for range 7 {
		index := ocispec.Index{}
		for range 1000 {
			index.Manifests = append(index.Manifests, wide)
		}
		wide = l.manifest("wide", ocispec.MediaTypeImageIndex, index)
	}
	var many ocispec.Index
	for i := range 20 {
		many.Manifests = append(many.Manifests, l.manifest("", ocispec.MediaTypeImageIndex, ocispec.Index{Annotations: map[string]string{strconv.Itoa(i): strings.Repeat("x", 3.5e6)}}))
	}
	l.manifest("many", ocispec.MediaTypeImageIndex, many)
	f, tr := transfers(t, t.TempDir())
	before := f.shape(t)
	for tag, want := range map[string]error{"huge": fault.Unavailable, "odd": fault.NotImplemented, "wrong": fault.Invalid, "many": fault.Invalid} {
		if err := tr.Pull(t.Context(), l.host+"/a:"+tag, PullOptions{}, func(Progress) {}); !errors.Is(err, want) {
			t.Errorf("%s: %v", tag, err)
		}
		if tag == "odd" && l.asked[odd.Digest] > 0 {
			t.Error("a layer that nobody can unpack was fetched")
		}
		l.asked[odd.Digest] = 0
	}
	testutil.Eventually(t, 10*time.Second, "nothing is left of what failed", func() bool {
		_, err := f.content.DropPartials(0)
		return err == nil && slices.Equal(before, f.shape(t))
	})
	for _, tag := range []string{"wide", "good"} {
		if err := tr.Pull(t.Context(), l.host+"/a:"+tag, PullOptions{}, func(Progress) {}); err != nil {
			t.Errorf("%s: %v", tag, err)
		}
	}
}

// A name that is not there is the answer's error, and not one in a stream.
func TestPullTellsNothingBeforeItBegins(t *testing.T) {
	testutil.RequireRoot(t)
	l := newLiar(t)
	_, tr := transfers(t, t.TempDir())
	var told steps
	if err := tr.Pull(t.Context(), l.host+"/a:1", PullOptions{}, told.add); !errors.Is(err, fault.NotFound) || len(told.list) > 0 {
		t.Errorf("%v after %v", err, told.list)
	}
}

// A layer that has rotted in the store is fetched anew for the next image that
// has it.
func TestPullHeals(t *testing.T) {
	testutil.RequireRoot(t)
	l := newLiar(t)
	shared := l.blob(ocispec.MediaTypeImageLayer, rootfs(t, file{"a", strings.Repeat("1", 100_000)}))
	l.image("1", l.blob(ocispec.MediaTypeImageLayer, rootfs(t, file{"b", "2"})), shared)
	l.image("2", shared)
	f, tr := transfers(t, t.TempDir())
	pull := func(tag string) {
		t.Helper()
		if err := tr.Pull(t.Context(), l.host+"/a:"+tag, PullOptions{}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
	}
	pull("1")
	blob, err := os.OpenFile(f.root+"/content/blobs/sha256/"+shared.Digest.Encoded(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if _, err := blob.WriteAt([]byte("rot"), 50_000); err != nil {
		t.Fatal(err)
	}
	pull("2")
	f.intact(t)
	if got, err := f.Catalog.Resolve(t.Context(), l.host+"/a:2"); err != nil || !f.layers.Has(got.ChainID) {
		t.Error(err)
	}
}

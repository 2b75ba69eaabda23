package upstream

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/dir"
	"github.com/tarehq/tare/registry/storage/storagetest"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/images"
	foreign "github.com/tarehq/tare/test/registry"
)

// large is an upstream with an image that has a layer of some megabytes.
func large(t *testing.T) (*faulty.Proxy, ocispec.Descriptor, []byte) {
	t.Helper()
	r := foreign.Start(t, foreign.Options{})
	img := images.Make(t, images.Spec{Size: 4 << 20, Compression: "none"})
	images.Copy(t, img.Ref(), "docker://"+r.Host+"/team/app:v1")
	images.Copy(t, img.Ref(), "docker://"+r.Host+"/team/other:v1")
	layer := img.Layers[0]
	data, err := r.Get("/v2/team/app/blobs/" + layer.Digest.String())
	ok(t, err)
	return faulty.Start(t, faulty.Options{Registry: r}), layer, data
}

func (c *cache) has(t *testing.T, repo string, d digest.Digest) bool {
	t.Helper()
	b, err := c.Storage.Storage.Blob(t.Context(), repo, d)
	if err == nil {
		ok(t, b.Content.Close())
	}
	return err == nil
}

// underway is the download of the blob, nil when there is none.
func (c *cache) underway(d digest.Digest) *download {
	c.downloads.mu.Lock()
	defer c.downloads.mu.Unlock()
	return c.downloads.byKey["up "+string(d)]
}

// TestShared has several clients that want one blob at the same time: whole, in
// parts, and below another name.
func TestShared(t *testing.T) {
	t.Parallel()
	p, layer, data := large(t)
	hold := make(chan struct{})
	p.On(faulty.Always(faulty.Blobs(), faulty.Fault{Wait: hold}))
	c := start(t, t.TempDir(), nil, up("up", p.URL))
	var all sync.WaitGroup
	read := func(path, span string, want []byte) {
		header := http.Header{}
		if span != "" {
			header.Set("Range", "bytes="+span)
		}
		all.Go(func() {
			_, got, err := c.get(t, http.MethodGet, path+layer.Digest.String(), header)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s %q: %d of %d bytes: %v", path, span, len(got), len(want), err)
			}
		})
	}
	n := int64(len(data))
	for range 4 {
		read("/v2/up/team/app/blobs/", "", data)
	}
	await(t, "the request for the blob", func() bool { return p.Count(faulty.Blobs()) == 1 })
	read("/v2/up/team/app/blobs/", "1000-1999", data[1000:2000])
	read("/v2/up/team/app/blobs/", "-10", data[n-10:])
	read("/v2/up/team/other/blobs/", "", data)
	await(t, "all readers", func() bool {
		dl := c.underway(layer.Digest)
		dl.mu.Lock()
		defer dl.mu.Unlock()
		return dl.readers == 7
	})
	close(hold)
	all.Wait()
	if n := p.Count(faulty.Blobs()); n != 1 {
		t.Errorf("the blob was fetched %d times", n)
	}
	for _, repo := range []string{"up/team/app", "up/team/other"} {
		await(t, "the blob in "+repo, func() bool { return c.has(t, repo, layer.Digest) })
	}
}

// TestStreamed has bytes reach clients before the last one has come.
func TestStreamed(t *testing.T) {
	t.Parallel()
	p, layer, data := large(t)
	p.On(faulty.Always(faulty.Blobs(), faulty.Fault{Stall: true, CutAfter: 1 << 20}))
	c := start(t, t.TempDir(), func(s *Storage) { s.pace.linger, s.pace.finish = time.Millisecond, time.Millisecond }, up("up", p.URL))
	ctx, cancel := context.WithCancel(t.Context())
	first := make([]byte, 512<<10)
	b, err := c.Blob(ctx, "up/team/app", layer.Digest)
	ok(t, err)
	_, err = io.ReadFull(b.Content, first)
	ok(t, err)
	if !bytes.Equal(first, data[:len(first)]) {
		t.Error("other bytes")
	}
	// A client that goes away ends its own reading alone, and the download after the last one.
	other, err := c.Blob(t.Context(), "up/team/app", layer.Digest)
	ok(t, err)
	cancel()
	_, err = io.ReadAll(b.Content)
	if err == nil {
		t.Error("the end of a request does not end its reader")
	}
	ok(t, b.Content.Close())
	_, err = io.ReadFull(other.Content, first)
	ok(t, err)
	if c.underway(layer.Digest) == nil {
		t.Error("the download ended while somebody waits for it")
	}
	ok(t, other.Content.Close())
	await(t, "the end of the download", func() bool { return c.underway(layer.Digest) == nil })
	await(t, "the end of its request", func() bool {
		return slices.IndexFunc(p.Requests(faulty.Blobs()), func(r faulty.Request) bool { return !r.Done }) < 0
	})
	p.On(nil)
	c.blob(t, "up/team/app", layer)
}

// TestNearlyDone has a download that goes on to its end without its client.
func TestNearlyDone(t *testing.T) {
	t.Parallel()
	p, layer, _ := large(t)
	p.On(faulty.Always(faulty.Blobs(), faulty.Fault{Rate: 4 << 20}))
	c := start(t, t.TempDir(), nil, up("up", p.URL))
	b, err := c.Blob(t.Context(), "up/team/app", layer.Digest)
	ok(t, err)
	_, err = b.Content.Read(make([]byte, 10))
	ok(t, err)
	ok(t, b.Content.Close())
	await(t, "the blob", func() bool { return c.has(t, "up/team/app", layer.Digest) })
}

// TestHead costs no body.
func TestHead(t *testing.T) {
	t.Parallel()
	p, layer, _ := large(t)
	c := start(t, t.TempDir(), nil, up("up", p.URL))
	answer, _, err := c.get(t, http.MethodHead, "/v2/up/team/app/blobs/"+layer.Digest.String(), nil)
	ok(t, err)
	if answer.StatusCode != http.StatusOK || answer.ContentLength != layer.Size {
		t.Errorf("%s, %d bytes", answer.Status, answer.ContentLength)
	}
	await(t, "the end of the download", func() bool { return c.underway(layer.Digest) == nil })
	if c.has(t, "up/team/app", layer.Digest) {
		t.Error("a HEAD has stored a blob")
	}
	answer, _, err = c.get(t, http.MethodGet, "/v2/up/team/app/blobs/"+digest.FromString("nothing").String(), nil)
	ok(t, err)
	if answer.StatusCode != http.StatusNotFound {
		t.Errorf("a blob that upstream lacks: %s", answer.Status)
	}
}

// TestWrongBytes never become a blob, and clients see that they are wrong.
func TestWrongBytes(t *testing.T) {
	t.Parallel()
	p, layer, data := large(t)
	c := start(t, t.TempDir(), nil, up("up", p.URL))
	for name, f := range map[string]faulty.Fault{
		"first byte": {Corrupt: true}, "last byte": {Corrupt: true, CorruptAt: layer.Size - 1},
		"more bytes": {Endless: 'x'}, "another length": {Length: layer.Size + 1},
	} {
		p.On(faulty.Always(faulty.Blobs(), f))
		answer, got, err := c.get(t, http.MethodGet, "/v2/up/team/app/blobs/"+layer.Digest.String(), nil)
		if answer.StatusCode == http.StatusOK && err == nil || len(got) >= len(data) {
			t.Errorf("%s: %s, %d bytes, and a right end", name, answer.Status, len(got))
		}
		await(t, "the end of the download", func() bool { return c.underway(layer.Digest) == nil })
		if c.has(t, "up/team/app", layer.Digest) {
			t.Errorf("%s: stored", name)
		}
	}
	p.On(nil)
	c.blob(t, "up/team/app", layer)
	await(t, "the blob", func() bool { return c.has(t, "up/team/app", layer.Digest) })
}

// TestResumed goes on where the connection to upstream broke.
func TestResumed(t *testing.T) {
	t.Parallel()
	p, layer, data := large(t)
	p.On(faulty.First(2, faulty.Blobs(), faulty.Fault{Cut: true, CutAfter: 1 << 20}))
	c := start(t, t.TempDir(), nil, up("up", p.URL))
	_, got, err := c.get(t, http.MethodGet, "/v2/up/team/app/blobs/"+layer.Digest.String(), nil)
	ok(t, err)
	if !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes", len(got), len(data))
	}
	if n := p.Sent(faulty.Blobs()); n != layer.Size {
		t.Errorf("upstream sent %d bytes for a blob of %d", n, layer.Size)
	}
}

// TestBound has no more downloads at a time than there are places.
func TestBound(t *testing.T) {
	t.Parallel()
	far, err := dir.Open(t.TempDir())
	ok(t, err)
	t.Cleanup(func() { ok(t, far.Close()) })
	var blobs []ocispec.Descriptor
	for i := range uint64(6) {
		blobs = append(blobs, storagetest.Push(t, far, "team/app", storagetest.Bytes(i, 100_000)))
	}
	p := faulty.Start(t, faulty.Options{Handler: registry.New(registry.Config{Storage: far})})
	hold := make(chan struct{})
	p.On(faulty.Always(faulty.Blobs(), faulty.Fault{Wait: hold}))
	c := start(t, t.TempDir(), func(s *Storage) { s.downloads.init(2) }, up("up", p.URL))
	var all sync.WaitGroup
	for _, b := range blobs {
		all.Go(func() {
			_, got, err := c.get(t, http.MethodGet, "/v2/up/team/app/blobs/"+b.Digest.String(), nil)
			if err != nil || digest.FromBytes(got) != b.Digest {
				t.Errorf("%s: %d bytes, %v", b.Digest, len(got), err)
			}
		})
	}
	await(t, "all downloads", func() bool {
		c.downloads.mu.Lock()
		defer c.downloads.mu.Unlock()
		return len(c.downloads.byKey) == len(blobs)
	})
	await(t, "two requests", func() bool { return p.Count(faulty.Blobs()) == 2 })
	close(hold)
	all.Wait()
}

// TestPrivate has a repository that does not get what another one is having.
func TestPrivate(t *testing.T) {
	t.Parallel()
	p, layer, _ := large(t)
	hold := make(chan struct{})
	p.On(func(r *faulty.Request) *faulty.Fault {
		switch {
		case strings.Contains(r.Path, "/empty/"):
			return &faulty.Fault{Status: http.StatusNotFound}
		case faulty.Blobs()(r):
			return &faulty.Fault{Wait: hold}
		}
		return nil
	})
	c := start(t, t.TempDir(), nil, up("up", p.URL))
	var all sync.WaitGroup
	all.Go(func() {
		_, _, _ = c.get(t, http.MethodGet, "/v2/up/team/app/blobs/"+layer.Digest.String(), nil)
	})
	await(t, "the download", func() bool { return p.Count(faulty.Blobs()) == 1 })
	// As if a manifest of its had named the blob.
	c.note("up/empty/app", storage.Manifest{Blobs: []ocispec.Descriptor{layer}}, nil)
	_, err := c.Blob(t.Context(), "up/empty/app", layer.Digest)
	is(t, err, fault.NotFound)
	close(hold)
	all.Wait()
	_, err = c.Blob(t.Context(), "up/empty/app", layer.Digest)
	is(t, err, fault.NotFound)
}

// TestRecent is bounded, and keeps what is used.
func TestRecent(t *testing.T) {
	t.Parallel()
	r := newRecent[int](10)
	for i := range 100 {
		r.put(strconv.Itoa(i), i)
		if v, ok := r.get("0"); !ok || v != 0 {
			t.Fatal("what is used is forgotten")
		}
	}
	if len(r.young)+len(r.old) > 20 {
		t.Errorf("%d values are remembered", len(r.young)+len(r.old))
	}
	r.change("new", func(n int) int { return n + 1 })
	r.drop("0")
	if v, _ := r.get("new"); v != 1 {
		t.Error(v)
	}
	if _, ok := r.get("0"); ok {
		t.Error("it was dropped")
	}
}

package registry

import (
	"bytes"
	"context"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

func TestBlob(t *testing.T) {
	r := start(t, Config{})
	data := []byte("0123456789")
	d := r.pushBlob("a", data)
	path := "/v2/a/blobs/" + string(d)
	a := r.want(r.do("GET", path, nil), 200, "")
	if !bytes.Equal(a.body, data) {
		t.Errorf("the blob is %q", a.body)
	}
	for name, want := range map[string]string{"Docker-Content-Digest": string(d), "Etag": `"` + string(d) + `"`, "Content-Length": "10",
		"Content-Type": "application/octet-stream", "Cache-Control": "max-age=31536000, immutable", "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	head := r.want(r.do("HEAD", path, nil), 200, "")
	if head.header.Get("Content-Length") != "10" || head.header.Get("Docker-Content-Digest") != string(d) {
		t.Errorf("HEAD: %v", head.header)
	}
	if a := r.want(r.do("GET", path, nil, "If-None-Match", `"`+string(d)+`"`), 304, ""); len(a.body) != 0 {
		t.Errorf("304 with %q", a.body)
	}
	r.want(r.do("GET", "/v2/b/blobs/"+string(d), nil), 404, blobUnknown)
	r.want(r.do("GET", "/v2/a/blobs/sha256:00", nil), 400, digestInvalid)
	r.want(r.do("GET", "/v2/a/blobs/"+strings.ToUpper(string(d)), nil), 400, digestInvalid)
	r.want(r.do("DELETE", path, nil), 202, "")
	r.want(r.do("DELETE", path, nil), 404, blobUnknown)
	r.want(r.do("GET", path, nil), 404, blobUnknown)
}

// TestRanges compares with http.ServeContent over the same bytes.
func TestRanges(t *testing.T) {
	r := start(t, Config{})
	data := []byte("0123456789")
	path := "/v2/a/blobs/" + string(r.pushBlob("a", data))
	for header, want := range map[string]string{"bytes=0-3": "0123", "bytes=5-": "56789", "bytes=-3": "789", "bytes=8-100": "89", "bytes=0-0": "0"} {
		a := r.want(r.do("GET", path, nil, "Range", header), 206, "")
		if string(a.body) != want || !strings.HasPrefix(a.header.Get("Content-Range"), "bytes ") {
			t.Errorf("%s: %q %q", header, a.body, a.header.Get("Content-Range"))
		}
	}
	for _, header := range []string{"bytes=10-", "bytes=5-2", "bytes=x-y", "bits=0-1", "bytes=--1"} {
		a := r.want(r.do("GET", path, nil, "Range", header), 416, unsupported)
		if a.header.Get("Docker-Content-Digest") != "" || a.header.Get("Etag") != "" || a.header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%s: the refusal describes the blob: %v", header, a.header)
		}
	}
	a := r.want(r.do("GET", path, nil, "Range", "bytes=0-1,4-5"), 206, "")
	_, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(bytes.NewReader(a.body), params["boundary"])
	for _, want := range []string{"01", "45"} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(part); string(got) != want {
			t.Errorf("a part is %q, want %q", got, want)
		}
	}
	r.want(r.do("GET", path, nil, "Range", "bytes=0-0"+strings.Repeat(",2-2", maxRanges)), 200, "")
	r.want(r.do("GET", path, nil, "Range", "bytes=0-1", "If-Range", `"other"`), 200, "")
}

// files is a storage whose blobs lie in a directory.
type files struct {
	*memory
	dir      string
	location func(context.Context) (string, error)
}

func (f *files) Blob(_ context.Context, _ string, d digest.Digest) (*storage.Blob, error) {
	file, err := os.Open(filepath.Join(f.dir, d.Encoded()))
	if err != nil {
		return nil, fault.New(fault.NotFound, "there is no blob %s", d)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return &storage.Blob{Content: file, Size: info.Size(), Location: f.location}, nil
}

func newFiles(t testing.TB, data []byte) (*files, digest.Digest) {
	t.Helper()
	f := &files{memory: newMemory(), dir: t.TempDir()}
	d := digest.FromBytes(data)
	if err := os.WriteFile(filepath.Join(f.dir, d.Encoded()), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return f, d
}

// TestSendfile looks whether the connection gets the file itself, which is what
// lets the kernel copy it, for the whole and for a range.
func TestSendfile(t *testing.T) {
	store, d := newFiles(t, bytes.Repeat([]byte("x"), 100_000))
	for _, header := range []string{"", "bytes=1-50000"} {
		w := &spy{ResponseRecorder: newRecorder()}
		req := newRequest("GET", "/v2/a/blobs/"+string(d))
		if header != "" {
			req.Header.Set("Range", header)
		}
		New(Config{Storage: store}).ServeHTTP(w, req)
		if !w.file {
			t.Errorf("Range %q: the writer did not get the file (status %d)", header, w.Code)
		}
	}
}

func TestRedirect(t *testing.T) {
	store, d := newFiles(t, []byte("data"))
	store.location = func(context.Context) (string, error) { return "https://bucket.example/key?signature=1", nil }
	path := "/v2/a/blobs/" + string(d)
	r := start(t, Config{Storage: store, Redirect: true})
	a := r.want(r.do("GET", path, nil), 307, "")
	if a.header.Get("Location") != "https://bucket.example/key?signature=1" || a.header.Get("Docker-Content-Digest") != string(d) || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", a.header)
	}
	r.want(r.do("HEAD", path, nil), 200, "") // an address is signed for GET
	r = start(t, Config{Storage: store})
	r.want(r.do("GET", path, nil), 200, "")
	store.location = func(context.Context) (string, error) { return "", fault.New(fault.Unavailable, "no") }
	r = start(t, Config{Storage: store, Redirect: true})
	r.want(r.do("GET", path, nil), 200, "")
}

func TestBlobInUse(t *testing.T) {
	r := start(t, Config{})
	r.pushImage("a", "v1", nil)
	a := r.want(r.do("DELETE", "/v2/a/blobs/"+string(digest.FromString("layer")), nil), 405, unsupported)
	if a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("%v", a.header)
	}
}

func TestEvents(t *testing.T) {
	var events []Event
	r := start(t, Config{Observe: func(e Event) { events = append(events, e) }, Authorizer: allowing(func(*http.Request, ...Access) (string, error) { return "eva", nil })})
	next := func(want Event) {
		t.Helper()
		if len(events) != 1 {
			t.Fatalf("%d events, want one: %+v", len(events), events)
		}
		got := events[0]
		events = nil
		if time.Since(got.Time) > time.Minute || got.RemoteAddr == "" || got.Host == "" || got.Method == "" || got.UserAgent == "" || got.User != "eva" {
			t.Errorf("who and when is missing: %+v", got)
		}
		got.Time, got.RemoteAddr, got.UserAgent, got.User, got.Host, got.Method = time.Time{}, "", "", "", "", ""
		if got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	d := r.pushBlob("a", []byte("layer"))
	next(Event{Action: Push, Repository: "a", Digest: d, MediaType: octets, Size: 5})
	r.want(r.do("GET", "/v2/a/blobs/"+string(d), nil, "X-Request-Id", "7"), 200, "")
	next(Event{Action: Pull, Repository: "a", Digest: d, MediaType: octets, Size: 5, RequestID: "7"})
	r.want(r.do("GET", "/v2/a/blobs/"+string(d), nil, "X-Forwarded-Proto", "https"), 200, "")
	next(Event{Action: Pull, Repository: "a", Digest: d, MediaType: octets, Size: 5, TLS: true})
	r.want(r.do("HEAD", "/v2/a/blobs/"+string(d), nil), 200, "")
	r.want(r.do("GET", "/v2/a/blobs/"+string(d), nil, "If-None-Match", `"`+string(d)+`"`), 304, "")
	r.want(r.do("GET", "/v2/a/blobs/"+string(d), nil, "Range", "bytes=9-"), 416, "")
	r.want(r.do("POST", "/v2/b/blobs/uploads/?mount="+string(d)+"&from=a", nil), 201, "")
	next(Event{Action: Push, Repository: "b", Digest: d, MediaType: octets, Size: 5, From: "a"})
	config := r.pushBlob("a", []byte("{}"))
	next(Event{Action: Push, Repository: "a", Digest: config, MediaType: octets, Size: 2})
	data := image("{}", "layer", nil)
	of := descriptorOf("application/vnd.oci.image.manifest.v1+json", data)
	m := Event{Repository: "a", Digest: of.Digest, MediaType: of.MediaType, Size: of.Size, Tag: "v1"}
	r.want(r.do("PUT", "/v2/a/manifests/v1", data, "Content-Type", of.MediaType), 201, "")
	m.Action = Push
	next(m)
	r.want(r.do("GET", "/v2/a/manifests/v1", nil), 200, "")
	m.Action = Pull
	next(m)
	r.want(r.do("DELETE", "/v2/a/manifests/v1", nil), 202, "")
	m.Action, m.Size = Delete, 0
	next(m)
	r.want(r.do("DELETE", "/v2/a/manifests/"+string(of.Digest), nil), 202, "")
	m.Tag = ""
	next(m)
	r.want(r.do("DELETE", "/v2/a/blobs/"+string(d), nil), 202, "")
	next(Event{Action: Delete, Repository: "a", Digest: d, MediaType: octets})
}

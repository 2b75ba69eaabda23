package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/dir"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// registry is one under test, with a client that does not follow redirects.
type registry struct {
	t       *testing.T
	url     string
	api     *api
	store   *memory // unless the storage is another
	storage storage.Storage
}

// overDirectory has start take a directory instead of memory.
var overDirectory bool

// TestOverDirectory runs what clients see of the storage once more, over the
// storage that a registry of one machine has.
func TestOverDirectory(t *testing.T) {
	overDirectory = true
	defer func() { overDirectory = false }()
	for name, test := range map[string]func(*testing.T){
		"paths": TestPaths, "blob": TestBlob, "ranges": TestRanges, "in use": TestBlobInUse, "events": TestEvents,
		"upload": TestUploadWays, "status": TestUploadStatus, "mount": TestMount, "early end": TestEarlyEnd, "silent": TestSilentConnection,
		"manifest": TestManifest, "delete": TestDeleteManifest, "put": TestPutManifest, "size": TestManifestSize,
		"conditions": TestPutConditions, "accept": TestAccept, "referrers": TestReferrers, "tags": TestTags, "catalog": TestCatalog,
		"immutable": TestImmutable, "quota": TestQuota, "stream": TestQuotaOfStream, "together": TestQuotaTogether,
		"under way": TestQuotaUnderWay, "abandoned": TestQuotaAbandoned,
	} {
		t.Run(name, test)
	}
}

func start(t *testing.T, c Config) *registry {
	t.Helper()
	store := newMemory()
	switch {
	case c.Storage != nil:
	case overDirectory:
		s, err := dir.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		c.Storage = s
	default:
		c.Storage = store
	}
	h := New(c).(*api)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return &registry{t, s.URL, h, store, c.Storage}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request; headers come as name, value, name, value.
func (r *registry) do(method, path string, body []byte, headers ...string) *answer {
	r.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = r.url + path
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	return r.send(method, path, reader, headers...)
}

// stream sends a request that does not say how long its body is.
func (r *registry) stream(method, path string, body []byte, headers ...string) *answer {
	r.t.Helper()
	return r.send(method, r.url+path, struct{ io.Reader }{bytes.NewReader(body)}, headers...)
}

func (r *registry) send(method, url string, body io.Reader, headers ...string) *answer {
	r.t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return &answer{resp.StatusCode, resp.Header, data}
}

// want checks the status, and the code of an error.
func (r *registry) want(a *answer, status int, c code) *answer {
	r.t.Helper()
	if a.status != status {
		r.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	if c == "" {
		return a
	}
	var e struct{ Errors []problem }
	if err := json.Unmarshal(a.body, &e); err != nil || len(e.Errors) == 0 {
		r.t.Fatalf("no error of the specification's shape: %s", a.body)
	}
	if e.Errors[0].Code != c || e.Errors[0].Message == "" {
		r.t.Fatalf("the error is %s, want %s", a.body, c)
	}
	return a
}

// pushBlob pushes by a single POST.
func (r *registry) pushBlob(repo string, data []byte) digest.Digest {
	r.t.Helper()
	d := digest.FromBytes(data)
	r.want(r.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d), data), 201, "")
	return d
}

// begin begins an upload and returns where it is.
func (r *registry) begin(repo string) string {
	r.t.Helper()
	return r.want(r.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202, "").header.Get("Location")
}

func descriptorOf(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// image is a manifest of the two blobs; change may make another of it.
func image(config, layer string, change func(*ocispec.Manifest)) []byte {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest,
		Config: descriptorOf(ocispec.MediaTypeImageConfig, []byte(config)),
		Layers: []ocispec.Descriptor{descriptorOf(ocispec.MediaTypeImageLayer, []byte(layer))}}
	m.SchemaVersion = 2
	if change != nil {
		change(&m)
	}
	data, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data
}

// pushImage pushes a config, a layer and their manifest.
func (r *registry) pushImage(repo, tag string, change func(*ocispec.Manifest)) ([]byte, digest.Digest) {
	r.t.Helper()
	r.pushBlob(repo, []byte("{}"))
	r.pushBlob(repo, []byte("layer"))
	data := image("{}", "layer", change)
	a := r.want(r.do("PUT", "/v2/"+repo+"/manifests/"+tag, data, "Content-Type", ocispec.MediaTypeImageManifest), 201, "")
	return data, digest.Digest(a.header.Get("Docker-Content-Digest"))
}

func TestHello(t *testing.T) {
	r := start(t, Config{})
	a := r.want(r.do("GET", "/v2/", nil), 200, "")
	if string(a.body) != "{}" || a.header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("%s %v", a.body, a.header)
	}
	r.want(r.do("GET", "/v2", nil), 200, "")
}

func TestPaths(t *testing.T) {
	r := start(t, Config{})
	if a := r.want(r.do("GET", "/", nil), 404, unsupported); a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", a.header)
	}
	r.want(r.do("GET", "/v2/a", nil), 404, unsupported)
	for _, name := range []string{"A", "a//b", "../a", "a/./b", "a%20b", ".a", strings.Repeat("a", 256)} {
		r.want(r.do("GET", "/v2/"+name+"/tags/list", nil), 400, nameInvalid)
	}
	for _, name := range []string{"a%2Fb", "a%2fb", "%2e%2e/a", "a/%2E/b"} {
		r.want(r.do("GET", "/v2/"+name+"/tags/list", nil), 404, unsupported)
	}
	_, d := r.pushImage("a", "v1", nil)
	r.want(r.do("GET", "/v2/a/manifests/"+strings.Replace(string(d), ":", "%3A", 1), nil), 200, "")
}

func TestMethods(t *testing.T) {
	r := start(t, Config{})
	for path, allow := range map[string]string{
		"/v2/": "GET, HEAD", "/v2/_catalog": "GET, HEAD", "/v2/a/tags/list": "GET, HEAD", "/v2/a/manifests/x": "GET, HEAD, PUT, DELETE",
		"/v2/a/blobs/x": "GET, HEAD, DELETE", "/v2/a/blobs/uploads/": "POST", "/v2/a/blobs/uploads/1": "GET, HEAD, PATCH, PUT, DELETE", "/v2/a/referrers/x": "GET, HEAD",
	} {
		a := r.want(r.do("OPTIONS", path, nil), 405, unsupported)
		if got := a.header.Get("Allow"); got != allow {
			t.Errorf("%s allows %q", path, got)
		}
	}
	for i, e := range endpoints {
		for method := range e.methods {
			if !strings.Contains(e.allow+",", method+",") {
				t.Errorf("endpoint %d does not say that it has %s", i, method)
			}
		}
		if len(e.methods) > 0 && strings.Count(e.allow, ",")+1 != len(e.methods) {
			t.Errorf("endpoint %d says that it has %s", i, e.allow)
		}
	}
}

// TestHeadHasNoBody compares the headers of HEAD with those of GET, on a raw
// connection: the client of net/http would hide a body.
func TestHeadHasNoBody(t *testing.T) {
	h := New(Config{Storage: newMemory()})
	for _, path := range []string{"/v2/", "/v2/a/tags/list", "/v2/a/manifests/x", "/nowhere", "/v2/_catalog"} {
		get, head := httptest.NewRecorder(), httptest.NewRecorder()
		h.ServeHTTP(get, httptest.NewRequest("GET", path, nil))
		h.ServeHTTP(head, httptest.NewRequest("HEAD", path, nil))
		if head.Body.Len() != 0 || head.Code != get.Code || head.Header().Get("Content-Length") != strconv.Itoa(get.Body.Len()) {
			t.Errorf("%s: GET %d %d bytes, HEAD %d %q %v", path, get.Code, get.Body.Len(), head.Code, head.Body, head.Header())
		}
	}
}

// broken is a storage that panics.
type broken struct{ *memory }

func (broken) Tags(context.Context, string, string, int) ([]string, error) { panic("out of luck") }

// TestPanic has a failure of the registry's own look like any other.
func TestPanic(t *testing.T) {
	var log bytes.Buffer
	r := start(t, Config{Storage: broken{newMemory()}, Log: logTo(&log)})
	r.want(r.do("GET", "/v2/a/tags/list", nil), 500, unknown)
	if !strings.Contains(log.String(), "out of luck") || !strings.Contains(log.String(), "Tags") {
		t.Errorf("the log says %q", log.String())
	}
}

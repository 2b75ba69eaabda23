package registry

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestNoun(t *testing.T) {
	for path, want := range map[string]string{
		"/": "other", "/v2/": "base", "/v2/_catalog": "catalog", "/v2/a/tags/list": "tags", "/v2/a/b/manifests/x": "manifest",
		"/v2/a/blobs/sha256:x": "blob", "/v2/a/blobs/uploads/": "upload", "/v2/a/blobs/uploads/7": "upload",
		"/v2/a/referrers/x": "referrers", "/v2/a": "other",
	} {
		if got := Noun(path); got != want {
			t.Errorf("%s is about %s, want %s", path, got, want)
		}
	}
}

// reporting is a writer that keeps what it was told.
type reporting struct {
	http.ResponseWriter
	got []Outcome
}

func (w *reporting) Report(o Outcome) { w.got = append(w.got, o) }

func TestReport(t *testing.T) {
	h := New(Config{Storage: newMemory(), Authorizer: allowing(func(r *http.Request, _ ...Access) (string, error) {
		if r.URL.Path == "/v2/secret/tags/list" {
			return "", forbidden()
		}
		return "eva", nil
	})})
	for path, want := range map[string]Outcome{
		"/v2/":                    {User: "eva"},
		"/v2/none/tags/list":      {"eva", "NAME_UNKNOWN", "there is no repository none"},
		"/v2/secret/tags/list":    {"", "DENIED", "you may not"},
		"/v2/a/manifests/nothing": {"eva", "MANIFEST_UNKNOWN", "there is no tag nothing"},
	} {
		w := &reporting{ResponseWriter: newRecorder()}
		if h.ServeHTTP(w, newRequest("GET", path)); len(w.got) != 1 || w.got[0] != want {
			t.Errorf("%s: %+v, want %+v", path, w.got, want)
		}
	}
}

func TestRefuse(t *testing.T) {
	rec := newRecorder()
	w := &reporting{ResponseWriter: rec}
	Refuse(w, newRequest("GET", "/v2/"), 429, TooManyRequests, "too many: wait")
	if rec.Code != 429 || rec.Body.String() != `{"errors":[{"code":"TOOMANYREQUESTS","message":"too many: wait"}]}` {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if len(w.got) != 1 || w.got[0] != (Outcome{"", "TOOMANYREQUESTS", "too many: wait"}) {
		t.Errorf("reported %+v", w.got)
	}
}

func TestLargest(t *testing.T) {
	r := start(t, Config{MaxBlob: 8, MaxManifest: 20})
	d := r.pushBlob("a", []byte("12345678"))
	r.want(r.do("POST", "/v2/a/blobs/uploads/?digest="+string(d), []byte("123456789")), 413, sizeInvalid)
	at := r.begin("a")
	r.want(r.do("PATCH", at, []byte("1234")), 202, "")
	a := r.want(r.do("PATCH", at, []byte("56789")), 413, sizeInvalid)
	if !strings.Contains(string(a.body), "at most 8B") {
		t.Errorf("%s", a.body)
	}
	// Without a length, what fits is taken before the rest is refused.
	req, err := http.NewRequest("PATCH", r.url+at, io.MultiReader(bytes.NewReader([]byte("56789"))))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("status %d for a chunk that is too long", resp.StatusCode)
	}
	r.want(r.do("PUT", at+"?digest="+string(digest.FromString("12345678")), nil), 201, "")
	r.want(r.do("PUT", "/v2/a/manifests/v1", image("{}", "layer", nil), "Content-Type", ociImage), 413, sizeInvalid)
}

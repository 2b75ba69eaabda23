package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/dir"
)

// hostile is in every text that an image can bring. What would run sets a mark.
const hostile = `"><script>document.title="PWNED"</script><img src=x onerror='document.title="PWNED"'>` + "\u202e"

// filled is a registry with some images, pushed as any client would.
type filled struct {
	t     testing.TB
	store storage.Storage
	api   http.Handler
	pages http.Handler
}

func fill(t testing.TB, a registry.Authorizer, realm string) *filled {
	t.Helper()
	s, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &filled{t, s, registry.New(registry.Config{Storage: s}), New(Config{Storage: s, Authorizer: a, Realm: realm})}
}

func (f *filled) push(method, path, mediaType string, body []byte) {
	f.t.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, strings.NewReader(string(body)))
	r.Header.Set("Content-Type", mediaType)
	if f.api.ServeHTTP(w, r); w.Code != 201 {
		f.t.Fatalf("%s: %s", path, w.Body)
	}
}

func (f *filled) blob(repo, mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	f.push("POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d.Digest), "", data)
	return d
}

func (f *filled) document(repo, name, mediaType string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if name == "" {
		name = string(d.Digest)
	}
	f.push("PUT", "/v2/"+repo+"/manifests/"+name, mediaType, data)
	return d
}

// image pushes one of two layers; text is in all that an image says of itself.
func (f *filled) image(repo, tag, architecture, text string) ocispec.Descriptor {
	config, err := json.Marshal(map[string]any{
		"created": "2026-03-04T05:06:07Z", "os": "linux", "architecture": architecture,
		"config": map[string]any{"Cmd": []string{"serve", text}, "Env": []string{"PATH=/bin", "X=" + text}, "Labels": map[string]string{"org.example.team": "one", text: text},
			"ExposedPorts": map[string]any{"8080/tcp": struct{}{}}, "User": text},
		"history": []map[string]any{{"created_by": "ADD rootfs.tar / # " + text}, {"created_by": "ENV PATH=/bin", "empty_layer": true}, {"created_by": "COPY app /usr/bin/app"}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: f.blob(repo, ocispec.MediaTypeImageConfig, config),
		Layers: []ocispec.Descriptor{f.blob(repo, ocispec.MediaTypeImageLayerGzip, make([]byte, 31_000)),
			f.blob(repo, ocispec.MediaTypeImageLayerGzip, []byte("app "+architecture))},
		Annotations: map[string]string{"org.opencontainers.image.title": text, "org.opencontainers.image.source": "https://git.example/app"}}
	return f.document(repo, tag, m.MediaType, m)
}

// index pushes one for two platforms, and something that refers to it.
func (f *filled) index(repo, tag, text string) ocispec.Descriptor {
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, arch := range []string{"amd64", "arm64"} {
		d := f.image(repo, "", arch, text)
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		x.Manifests = append(x.Manifests, d)
	}
	gone := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 3, Platform: &ocispec.Platform{OS: "linux", Architecture: text}}
	x.Manifests = append(x.Manifests, gone)
	d := f.document(repo, tag, x.MediaType, x)
	signature := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example.signature" + text,
		Config: f.blob(repo, "application/vnd.oci.empty.v1+json", []byte("{}")), Layers: []ocispec.Descriptor{f.blob(repo, "application/octet-stream", []byte("signed"))}, Subject: &d}
	f.document(repo, "", signature.MediaType, signature)
	return d
}

func (f *filled) get(path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
	r.Host = "reg.example:5000"
	for _, c := range change {
		c(r)
	}
	f.pages.ServeHTTP(w, r)
	return w
}

// has looks for texts in a page of 200.
func (f *filled) has(path string, texts ...string) string {
	f.t.Helper()
	w := f.get(path)
	page := w.Body.String()
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") || w.Header().Get("X-Content-Type-Options") != "nosniff" ||
		!strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
		f.t.Fatalf("%s: %d %v", path, w.Code, w.Header())
	}
	for _, text := range texts {
		if !strings.Contains(page, text) {
			_, shown, _ := strings.Cut(page, "<main>")
			f.t.Errorf("%s lacks %s:\n%s", path, text, shown)
		}
	}
	return page
}

func TestPages(t *testing.T) {
	f := fill(t, nil, "")
	f.has("/", "Nothing is here yet")
	d := f.image("team/app", "v1", "amd64", "plain")
	x := f.index("team/multi", "latest", "")
	f.has("/", `<a href="/images/team/app">team/app</a>`, `<a href="/images/team/multi">`)
	f.has("/images/team/app", `href="/images/team/app:v1"`, "linux/amd64", "2026-03-04", d.Digest.Encoded()[:12], "32.1kB")
	f.has("/images/team/multi", "linux/amd64", "linux/arm64", x.Digest.Encoded()[:12], "2026-03-04")
	f.has("/images/team/app:v1", "<code>docker pull reg.example:5000/team/app:v1</code>", "[&#34;serve&#34;,&#34;plain&#34;]", "COPY app /usr/bin/app", "31kB",
		"org.example.team", "8080/tcp", "https://git.example/app", "2026-03-04 05:06 UTC")
	f.has("/images/team/app@"+string(d.Digest), "<code>docker pull reg.example:5000/team/app@"+string(d.Digest)+"</code>")
	f.has("/images/team/multi:latest", "linux/arm64", "not here", "application/vnd.example.signature")
	for _, path := range []string{"/images/", "/images/none", "/images/team/app:none", "/images/team/app@sha256:0", "/images/team/app@" + string(digest.FromString("none")),
		"/images//x", "/images/../x", "/images/UPPER", "/images/team/app:", "/images/team/app?last=" + strings.Repeat("x", 200), "/?last=%3Cb%3E"} {
		if w := f.get(path); w.Code != 404 || !strings.Contains(w.Body.String(), "There is nothing here") {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := f.get("/", func(r *http.Request) { r.Method = "POST" }); w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestSearchAndPaging(t *testing.T) {
	f := fill(t, nil, "")
	for i := range pageOfRepositories + 3 {
		f.blob(fmt.Sprintf("r%03d", i), "", []byte("x"))
	}
	page := f.has("/", `href="/images/r000"`, `href="/images/r059"`, `href="/?last=r059&amp;q="`)
	if strings.Contains(page, "r060") {
		t.Error("a page has more than fit")
	}
	if page := f.has("/?last=r059", `href="/images/r060"`, `href="/images/r062"`, "← First"); strings.Contains(page, "More") {
		t.Error("the last page has a next one")
	}
	if page := f.has("/?q=R06", `href="/images/r060"`, `value="r06"`); strings.Contains(page, "r050") {
		t.Error("the search finds what has another name")
	}
	f.has("/?q="+strings.Repeat("%3C", 3), "No repository", `value="&lt;&lt;&lt;"`)
	for i := range pageOfTags + 1 {
		f.image("app", fmt.Sprintf("v%02d", i), "amd64", "")
	}
	f.has("/images/app", "app:v19", `href="/images/app?last=v19"`)
	f.has("/images/app?last=v19", "app:v20")
}

// Nothing of an image gets out of its text.
func TestHostileText(t *testing.T) {
	f := fill(t, nil, "")
	d := f.image("evil", "v1", "amd64", hostile)
	f.index("evil", "all", hostile)
	for _, path := range []string{"/", "/images/evil", "/images/evil:v1", "/images/evil:all", "/images/evil@" + string(d.Digest), "/?q=%3Cscript%3Ealert(1)"} {
		page := f.has(path)
		if strings.Contains(page, "<img src=x") || strings.Contains(page, "<script>document.title") || strings.Contains(page, "\u202e") || strings.Contains(page, "<script>alert") {
			t.Errorf("%s:\n%s", path, page)
		}
	}
	f.has("/images/evil:v1", "PWNED", "\uFFFD") // it is shown, as text
}

func TestHost(t *testing.T) {
	f := fill(t, nil, "")
	f.image("app", "v1", "amd64", "")
	for host, want := range map[string]string{
		"reg.example": "reg.example", "localhost": "localhost", "[::1]:5000": "[::1]:5000", "registry": "registry:80", "10.0.0.1:5000": "10.0.0.1:5000",
		"a b": "", "x;rm": "", "<b>": "", "a/b": "", "x.example:port": "", "": "", "$(id).example": "",
	} {
		w := f.get("/images/app:v1", func(r *http.Request) { r.Host = host })
		switch {
		case want == "" && w.Code != 400:
			t.Errorf("%q: %d", host, w.Code)
		case want != "" && !strings.Contains(w.Body.String(), "docker pull "+want+"/app:v1<"):
			t.Errorf("%q: no command for %s", host, want)
		}
	}
}

// doorman lets eva see all and others what is public.
type doorman struct{}

func (doorman) Authorize(r *http.Request, want ...registry.Access) (string, error) {
	challenge := &registry.Challenge{Header: "Bearer x", Err: fault.New(fault.Unauthorized, "log in")}
	user, password, given := r.BasicAuth()
	if given && password != "right" {
		return "", challenge
	}
	for _, w := range want {
		switch {
		case w.Repository == "" && !given:
			return "", challenge
		case w.Repository == "" || strings.HasPrefix(w.Repository, "public/") || user == "eva":
		case !given:
			return "", challenge
		default:
			return "", fault.New(fault.Forbidden, "no")
		}
	}
	return user, nil
}

func TestWhoSees(t *testing.T) {
	f := fill(t, doorman{}, "realm")
	f.image("secret/app", "v1", "amd64", "")
	as := func(user, password string) func(*http.Request) {
		return func(r *http.Request) {
			if user != "" {
				r.SetBasicAuth(user, password)
			}
		}
	}
	check := func(path, user, password string, status int) *httptest.ResponseRecorder {
		t.Helper()
		w := f.get(path, as(user, password))
		if w.Code != status {
			t.Errorf("%s as %q: %d, want %d", path, user, w.Code, status)
		}
		if asks := strings.HasPrefix(w.Header().Get("WWW-Authenticate"), `Basic realm="realm"`); asks != (status == 401) {
			t.Errorf("%s as %q: %v", path, user, w.Header())
		}
		if status != 200 && strings.Contains(w.Body.String(), "amd64") {
			t.Errorf("%s as %q shows what is secret", path, user)
		}
		return w
	}
	check("/", "", "", 401) // nothing to see, and there may be more
	f.image("public/app", "v1", "amd64", "")
	if page := check("/", "", "", 200).Body.String(); !strings.Contains(page, "public/app") || strings.Contains(page, "secret") || !strings.Contains(page, "Log in") {
		t.Error(page)
	}
	check("/images/secret/app", "", "", 401)
	check("/images/secret/none", "", "", 401)
	check("/images/public/app:v1", "", "", 200)
	check("/login", "", "", 401)
	check("/login", "eva", "right", 303)
	check("/", "eva", "wrong", 401)
	if page := check("/", "eva", "right", 200).Body.String(); !strings.Contains(page, "secret/app") || strings.Contains(page, "Log in") {
		t.Error(page)
	}
	check("/images/secret/app:v1", "eva", "right", 200)
	check("/images/secret/app:v1", "bob", "right", 404)
	check("/images/secret/none", "bob", "right", 404)
	// Where a browser cannot log in, it is not asked to.
	f.pages = New(Config{Storage: f.store, Authorizer: doorman{}})
	check("/images/secret/app", "", "", 404)
	if page := check("/", "", "", 200).Body.String(); strings.Contains(page, "Log in") {
		t.Error(page)
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain äöü": "plain äöü", "a\nb\tc": "a b c", "a\x00\x1b[31m": "a\uFFFD\uFFFD[31m", "a\u202eb\u2066\u200b": "a\uFFFDb\uFFFD\uFFFD", "\xff": "\uFFFD", "12345678901": "1234567890…",
	} {
		if got := visible(in, 10); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

package remote

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

// What a registry writes into an error is one bounded line.
func TestErrorTexts(t *testing.T) {
	for body, want := range map[string]struct {
		status int
		text   string
		kind   fault.Kind
	}{
		`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`:                            {404, "manifest unknown: manifest unknown", fault.NotFound},
		`{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`:            {401, "denied: requested access to the resource is denied", fault.Forbidden},
		`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Type":"x"}]}]}`: {401, "unauthorized: authentication required", fault.Unauthorized},
		`{"errors":[{"code":"A","message":"b"},{"code":"C","message":"d"}]}`:                               {400, "a: b; c: d", fault.Invalid},
		`{"errors":[{"code":"NAME_INVALID"}]}`:                                                             {400, "name invalid", fault.Invalid},
		`{"details":"incorrect username or password"}`:                                                     {401, "unauthorized: incorrect username or password", fault.Unauthorized},
		`{"message":"slow down"}`: {429, "toomanyrequests: slow down", fault.Unavailable},
		"{\"errors\":[{\"code\":\"X\",\"message\":\"a\\u001b[31m\\n\\u202eb\\u0000\"}]}": {409, "x: a[31m b", fault.Conflict},
		``:       {401, "unauthorized: authentication required", fault.Unauthorized},
		`<p>`:    {403, "denied: requested access to the resource is denied", fault.Forbidden},
		`<html>`: {405, "unexpected status from GET request to https://" + name + "/v2/a/b/tags/list: 405 Method Not Allowed", fault.NotImplemented},
		`{"errors":[{"code":"X","message":"` + strings.Repeat("é", 5000) + `"}]}`: {400, "x: " + strings.Repeat("é", 510) + "…", fault.Invalid},
		`{"errors":[` + strings.Repeat(`{"code":"X"},`, 9000) + `{"code":"X"}]}`:  {418, "unexpected status from GET request to https://" + name + "/v2/a/b/tags/list: 418 I'm a teapot", fault.Invalid},
	} {
		r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path != "/v2/" {
				w.WriteHeader(want.status)
				io.WriteString(w, body)
			}
		})
		_, err := r.Tags(t.Context())
		if err == nil || err.Error() != want.text || fault.KindOf(err) != want.kind {
			t.Errorf("%.80s: %v (%v), want %.100s", body, err, fault.KindOf(err), want.text)
		}
	}
}

func TestManifestIsChecked(t *testing.T) {
	const docker, oci = "application/vnd.docker.distribution.manifest.v2+json", ocispec.MediaTypeImageManifest
	index := `{"schemaVersion":2,"manifests":[]}`
	single := `{"schemaVersion":2,"config":{},"layers":[]}`
	for _, test := range []struct{ ref, body, contentType, digest, want, err string }{
		{"v1", single, oci, "", oci, ""},
		{"v1", single, oci + "; charset=utf-8", "", oci, ""},
		{"v1", single, "application/json", "", oci, ""},
		{"v1", index, "", "", ocispec.MediaTypeImageIndex, ""},
		{"v1", `{"mediaType":"` + docker + `","config":{},"layers":[]}`, "text/plain", "", docker, ""},
		{"v1", `{"mediaType":"application/vnd.x+json","blob":1}`, "application/vnd.x+json", "", "application/vnd.x+json", ""},
		{"v1", single, oci, digest.FromString(single).String(), oci, ""},
		{"v1", single, oci, digest.SHA512.FromString(single).String(), oci, ""},
		{digest.FromString(single).String(), single, oci, "sha256:nonsense", oci, ""},
		{digest.SHA512.FromString(single).String(), single, oci, "", oci, ""},
		{"v1", single, oci, digest.FromString("x").String(), "", "is another: its digest is"},
		{digest.FromString("x").String(), single, oci, "", "", "is another: its digest is"},
		{digest.FromString("x").String(), single, oci, digest.FromString(single).String(), "", "is another: its digest is"},
		{"v1", `{"mediaType":"` + docker + `","config":{},"layers":[]}`, oci, "", "", "calls itself"},
		{"v1", `{"manifests":[],"layers":[]}`, oci, "", "", "claims to be an index too"},
		{"v1", index, oci, "", "", "not of its type"},
		{"v1", single, ocispec.MediaTypeImageIndex, "", "", "not of its type"},
		{"v1", `{"schemaVersion":1,"fsLayers":[]}`, "application/vnd.docker.distribution.manifest.v1+prettyjws", "", "", "schema 1"},
		{"v1", `{}`, "", "", "", "without a type"},
		{"v1", `[]`, oci, "", "", "no JSON object"},
		{"v1", single + strings.Repeat(" ", 4<<20), oci, "", "", "larger than 4194304 bytes"},
	} {
		r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", test.contentType)
			if test.digest != "" {
				w.Header().Set("Docker-Content-Digest", test.digest)
			}
			if q.Method == http.MethodHead {
				return // tells nothing
			}
			if len(test.body) > 4<<20 {
				http.NewResponseController(w).Flush() // without a length
			}
			io.WriteString(w, test.body)
		})
		d, data, err := r.Manifest(t.Context(), test.ref)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%.60s as %q: %+v %v, want %s", test.body, test.contentType, d, err, test.err)
			}
			continue
		}
		if err != nil || d.MediaType != test.want || d.Digest.Algorithm().FromBytes(data) != d.Digest || d.Size != int64(len(data)) {
			t.Errorf("%.60s as %q: %+v %v", test.body, test.contentType, d, err)
		}
		if again, err := r.Resolve(t.Context(), test.ref); err != nil || again.Digest != d.Digest || again.MediaType != d.MediaType {
			t.Errorf("%.60s resolves to %+v: %v", test.body, again, err)
		}
	}
}

func TestResolveByHead(t *testing.T) {
	d := digest.FromString("x")
	gets := 0
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/v2/" {
			return
		}
		if q.Method == http.MethodGet {
			gets++
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		w.Header().Set("Docker-Content-Digest", d.String())
		w.Header().Set("Content-Length", "77")
	})
	got, err := r.Resolve(t.Context(), "v1")
	if err != nil || got.Digest != d || got.Size != 77 || got.MediaType != ocispec.MediaTypeImageIndex || gets != 0 {
		t.Errorf("%+v %v after %d GET", got, err, gets)
	}
}

func TestPages(t *testing.T) {
	var link string
	pages := 0
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/v2/" {
			return
		}
		pages++
		switch last := q.URL.Query().Get("last"); {
		case link != "":
			w.Header().Set("Link", link)
		case last == "":
			w.Header().Set("Link", `<https://`+name+`/other>; rel=prev, </v2/a/b/tags/list?n=2&last=b>; title="a,b;c"; rel="x next"`)
		case last == "b":
			w.Header().Set("Link", `<?n=2&last=c>;rel=next`)
		}
		io.WriteString(w, `{"tags":["t`+q.URL.Query().Get("last")+`"]}`)
	})
	tags, err := r.Tags(t.Context())
	if err != nil || strings.Join(tags, " ") != "t tb tc" {
		t.Errorf("%q %v", tags, err)
	}
	for _, link = range []string{`<https://elsewhere.example/v2/a/b/tags/list>; rel="next"`, `</v2/a/b/tags/list?n=1000>; rel="next"`, `<http://` + name + `/v2/>; rel=next`} {
		if _, err := r.Tags(t.Context()); err == nil || !strings.Contains(err.Error(), "which is refused") {
			t.Errorf("%s: %v", link, err)
		}
	}
}

func TestHostileLists(t *testing.T) {
	for body, want := range map[string]string{
		`{"tags":["a/b"]}`: `the tag "a/b", which is none`, `{"tags":["` + strings.Repeat("x", 129) + `"]}`: "which is none", `[`: "a list of tags that is none",
		`{"tags":["sha256:` + strings.Repeat("0", 64) + `"]}`: "which is none",
	} {
		r := scripted(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
		if _, err := r.Tags(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50s: %v", body, err)
		}
	}
	for body, want := range map[string]string{
		`{"manifests":[{"digest":"sha256:x"}]}`: "which is no digest", `[`: "no index",
		`{"manifests":[` + strings.Repeat(`{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},`, 10_000) + `{}]}`: "more than 10000",
	} {
		r := scripted(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
		if _, err := r.Referrers(t.Context(), digest.FromString("x")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50s: %v", body, err)
		}
	}
}

// A registry with the API of referrers keeps them itself.
func TestReferrersAPI(t *testing.T) {
	subject := digest.FromString("subject")
	var puts []string
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		switch {
		case q.Method == http.MethodPut:
			puts = append(puts, q.URL.Path)
			w.Header().Set("OCI-Subject", subject.String())
			w.WriteHeader(http.StatusCreated)
		case q.URL.Path == "/v2/a/b/referrers/"+subject.String() && q.URL.RawQuery == "":
			w.Header().Set("Link", `<`+q.URL.Path+`?page=2>; rel="next"`)
			io.WriteString(w, `{"manifests":[{"digest":"`+digest.FromString("1").String()+`"}]}`)
		case q.URL.RawQuery == "page=2":
			io.WriteString(w, `{"manifests":[{"digest":"`+digest.FromString("2").String()+`","artifactType":"x/y"}]}`)
		}
	})
	refs, err := r.Referrers(t.Context(), subject)
	if err != nil || len(refs) != 2 || refs[1].ArtifactType != "x/y" {
		t.Errorf("%+v %v", refs, err)
	}
	data := []byte(`{"subject":{"digest":"` + subject.String() + `"}}`)
	d := describeBytes(ocispec.MediaTypeImageManifest, data)
	if err := r.PushManifest(t.Context(), d, data, d.Digest.String()); err != nil || len(puts) != 1 {
		t.Errorf("%v %v", err, puts)
	}
	if err := r.PushManifest(t.Context(), d, []byte("{}"), "x"); !errors.Is(err, fault.Invalid) {
		t.Errorf("other bytes than the descriptor's: %v", err)
	}
	if got := fallbackTag(digest.SHA512.FromString("x")); len(got) != len("sha512-")+64 {
		t.Error(got)
	}
}

// A registry that stores something else than was sent is not believed.
func TestPushedDigestIsChecked(t *testing.T) {
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Docker-Content-Digest", digest.FromString("another").String())
		w.Header().Set("Location", "/v2/a/b/blobs/uploads/1")
		w.WriteHeader(map[string]int{"GET": 200, "POST": 202, "PUT": 201, "DELETE": 204}[q.Method])
	})
	d := describeBytes(ocispec.MediaTypeImageManifest, []byte("{}"))
	if err := r.PushManifest(t.Context(), d, []byte("{}"), "x"); err == nil || !strings.Contains(err.Error(), "says to have stored") {
		t.Error(err)
	}
	if err := r.PushBlob(t.Context(), d, opener([]byte("{}")), nil); err == nil || !strings.Contains(err.Error(), "says to have stored") {
		t.Error(err)
	}
}

// A registry that does not know how to mount is not asked again, and is no
// failure.
func TestNoMount(t *testing.T) {
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
	})
	if ok, err := r.Mount(t.Context(), digest.FromString("x"), "c/d"); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
}

func TestSearch(t *testing.T) {
	reg := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/search" {
			io.WriteString(w, `{"num_results":2,"results":[{"name":"a/b","star_count":3,"is_official":true,"description":"d"},{"name":"c"}]}`)
		}
	})
	c, host := newClient(t, Config{}), strings.TrimPrefix(reg.URL, "http://")
	got, err := c.Search(t.Context(), host+"/some/thing", 25, ann)
	if err != nil || len(got) != 2 || got[0] != (SearchResult{Name: "a/b", Description: "d", StarCount: 3, IsOfficial: true}) {
		t.Errorf("%+v %v", got, err)
	}
	all := reg.requests()
	if q := all[len(all)-1]; q.URL.Query().Get("q") != "some/thing" || q.URL.Query().Get("n") != "25" || q.Header.Get("Authorization") != basic("ann", "secret") {
		t.Errorf("%s %v", q.URL, q.Header)
	}
	if got, err = c.Search(t.Context(), host+"/x", 1, Credentials{}); err != nil || len(got) != 1 {
		t.Errorf("%+v %v", got, err)
	}
	for _, limit := range []int{0, 101} {
		if _, err := c.Search(t.Context(), "x", limit, Credentials{}); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is outside the range of [1, 100]") {
			t.Error(err)
		}
	}
	for term, want := range map[string]string{"busybox": "index.docker.io busybox", "library/busybox": "index.docker.io busybox", "me/app": "index.docker.io me/app",
		"docker.io/me/app": "index.docker.io me/app", "reg.example:5/a/b": "reg.example:5 a/b", "localhost/a": "localhost a", "": "index.docker.io "} {
		if h, rest, err := splitTerm(term); err != nil || h+" "+rest != want {
			t.Errorf("%q: %s %s %v", term, h, rest, err)
		}
	}
	for _, term := range []string{"https://x/y", "u@h.x/y", "a:b:c/x"} {
		if _, _, err := splitTerm(term); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", term, err)
		}
	}
	for host, want := range map[string]string{"": "docker.io", "https://index.docker.io/v1/": "docker.io", "registry-1.docker.io": "docker.io", "reg:5000": "reg:5000", "https://reg/v2/": "reg"} {
		if got := loginDomain(host); got != want {
			t.Errorf("%q: %s", host, got)
		}
	}
}

// With an identity token, which stands for a password that nobody has kept, a
// token to search with is asked for.
func TestSearchWithIdentityToken(t *testing.T) {
	var asked url.Values
	auth := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		asked = r.PostForm
		io.WriteString(w, `{"access_token":"to-search"}`)
	})
	reg := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+auth.URL+`",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		case r.Header.Get("Authorization") == "Bearer to-search":
			io.WriteString(w, `{"results":[{"name":"private"}]}`)
		default:
			io.WriteString(w, `{"results":[]}`)
		}
	})
	got, err := newClient(t, Config{}).Search(t.Context(), strings.TrimPrefix(reg.URL, "http://")+"/x", 25, Credentials{IdentityToken: "id"})
	if err != nil || len(got) != 1 || got[0].Name != "private" {
		t.Errorf("%+v %v", got, err)
	}
	if asked.Get("grant_type") != "refresh_token" || asked.Get("refresh_token") != "id" || asked.Get("scope") != searchScope {
		t.Errorf("%v", asked)
	}
}

func TestChallenges(t *testing.T) {
	for text, want := range map[string]string{
		`Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"`: `bearer realm=https://a/t scope=repository:a/b:pull,push service=s`,
		`basic Realm = "x \"y\"" , charset=utf-8`:                                 `basic charset=utf-8 realm=x "y"`,
		`Negotiate YWJj==, Bearer realm=a, Basic realm="b"`:                       `negotiate|bearer realm=a|basic realm=b`,
		`Basic`:                         `basic`,
		`,,Basic realm=x,,Bearer ,`:     `basic realm=x|bearer`,
		`Bearer realm="unended`:         `bearer`,
		`="x", Basic`:                   `basic`,
		`realm="x"`:                     ``,
		strings.Repeat("Basic, ", 5000): ``,
	} {
		var got []string
		for _, c := range parseChallenges(text) {
			line := c.scheme
			for _, key := range []string{"charset", "realm", "scope", "service"} {
				if v, ok := c.params[key]; ok {
					line += " " + key + "=" + v
				}
			}
			got = append(got, line)
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%.60s: %s, want %s", text, strings.Join(got, "|"), want)
		}
	}
}

package registry

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
)

// rules are immutable tags, and one quota for all repositories.
type rules struct {
	fixed []string
	quota int64
}

func (r rules) Immutable(_, tag string) bool { return slices.Contains(r.fixed, tag) }
func (r rules) Quota(string) int64           { return r.quota }

func TestImmutable(t *testing.T) {
	r := start(t, Config{Rules: rules{fixed: []string{"v1"}}})
	data, d := r.pushImage("a", "v1", nil)
	put := func(item string, data []byte) *answer {
		return r.do("PUT", "/v2/a/manifests/"+item, data, "Content-Type", ociImage)
	}
	r.want(put("v1", data), 201, "")
	other := image("{}", "layer", func(m *ocispec.Manifest) { m.ArtifactType = "x/y" })
	r.want(put("v1", other), 409, denied)
	r.want(put(string(digest.FromBytes(other))+"?tag=v2&tag=v1", other), 409, denied)
	r.want(r.do("GET", "/v2/a/manifests/v2", nil), 404, manifestUnknown)
	r.want(put("v2", other), 201, "")
	if a := r.want(r.do("DELETE", "/v2/a/manifests/v1", nil), 409, denied); strings.Contains(string(a.body), "push") {
		t.Errorf("whoever deletes is told to push: %s", a.body)
	}
	r.want(r.do("DELETE", "/v2/a/manifests/"+string(d), nil), 409, denied)
	r.want(r.do("DELETE", "/v2/a/manifests/v2", nil), 202, "")
	r.want(r.do("DELETE", "/v2/a/manifests/"+string(digest.FromBytes(other)), nil), 202, "")
}

func TestQuota(t *testing.T) {
	r := start(t, Config{Rules: rules{quota: 1000}})
	r.pushBlob("a", bytes.Repeat([]byte("1"), 600))
	big := bytes.Repeat([]byte("2"), 600)
	a := r.want(r.do("POST", "/v2/a/blobs/uploads/?digest="+string(digest.FromBytes(big)), big), 403, denied)
	if !strings.Contains(string(a.body), "1000B") {
		t.Errorf("the quota is not told: %s", a.body)
	}
	r.pushBlob("a", bytes.Repeat([]byte("1"), 600)) // it is there
	r.pushBlob("b", big)
	r.want(r.do("POST", "/v2/a/blobs/uploads/?mount="+string(digest.FromBytes(big))+"&from=b", nil), 403, denied)
	at := r.begin("a")
	r.want(r.do("PATCH", at, bytes.Repeat([]byte("x"), 1001)), 403, denied)
	r.want(r.do("PATCH", at, big), 403, denied)
	r.want(r.do("PATCH", at, big[:400]), 202, "")
	r.want(r.do("PATCH", at, big[:1]), 403, denied)
	r.want(r.do("DELETE", at, nil), 204, "")
	r.pushBlob("a", []byte("{}"))
	m := image("{}", strings.Repeat("1", 600), func(m *ocispec.Manifest) { m.Annotations = map[string]string{"long": strings.Repeat("x", 398)} })
	r.want(r.do("PUT", "/v2/a/manifests/v1", m, "Content-Type", ociImage), 403, denied)
}

// TestQuotaOfStream sends more than the quota without saying how much it will be.
func TestQuotaOfStream(t *testing.T) {
	r := start(t, Config{Rules: rules{quota: 1000}})
	at := r.begin("a")
	r.want(r.stream("PATCH", at, make([]byte, 5000)), 403, denied)
	if got := r.do("GET", at, nil).header.Get("Range"); got != "0-999" {
		t.Errorf("%s are here", got)
	}
}

// TestQuotaUnderWay: what uploads under way have is nobody else's, until they end.
func TestQuotaUnderWay(t *testing.T) {
	r := start(t, Config{Rules: rules{quota: 1000}})
	r.pushBlob("a", []byte("{}"))
	one, two := r.begin("a"), r.begin("a")
	part := bytes.Repeat([]byte("1"), 600)
	r.want(r.do("PATCH", one, part), 202, "")
	r.want(r.do("PATCH", two, part), 403, denied)
	r.want(r.stream("PATCH", two, part), 403, denied)
	if got := r.do("GET", two, nil).header.Get("Range"); got != "0-397" {
		t.Errorf("%s are here", got)
	}
	r.want(r.do("POST", "/v2/a/blobs/uploads/?digest="+string(digest.FromString("x")), []byte("x")), 403, denied)
	r.want(r.do("POST", "/v2/a/blobs/uploads/?digest="+string(digest.FromString("{}")), []byte("{}")), 201, "") // it is there
	m := image("{}", "{}", nil)
	r.want(r.do("PUT", "/v2/a/manifests/v1", m, "Content-Type", ociImage), 403, denied)
	r.want(r.do("DELETE", two, nil), 204, "")
	r.want(r.do("PUT", one+"?digest="+string(digest.FromString("not that")), nil), 400, digestInvalid) // ends it
	three := r.begin("a")
	r.want(r.do("PATCH", three, part), 202, "")
	r.want(r.do("PUT", three+"?digest="+string(digest.FromBytes(part)), nil), 201, "")
	r.pushBlob("a", bytes.Repeat([]byte("2"), 398))
	if r.do("POST", "/v2/a/blobs/uploads/?digest="+string(digest.FromString("x")), []byte("x")).status != 403 || len(r.api.quotas.of) != 0 {
		t.Errorf("the quota is not full, or %d repositories have uploads under way", len(r.api.quotas.of))
	}
}

// TestQuotaAbandoned: an upload that nobody goes on with gives way to others.
func TestQuotaAbandoned(t *testing.T) {
	r := start(t, Config{Rules: rules{quota: 1000}})
	left, part := r.begin("a"), bytes.Repeat([]byte("1"), 600)
	r.want(r.do("PATCH", left, part), 202, "")
	again := r.begin("a")
	r.want(r.do("PATCH", again, part), 403, denied)
	r.api.idle = 0
	r.want(r.do("PATCH", again, part), 202, "")
	r.want(r.do("GET", left, nil), 404, blobUploadUnknown)
	r.want(r.do("PUT", again+"?digest="+string(digest.FromBytes(part)), nil), 201, "")
}

// TestQuotaTogether has many clients push at once what fits only in part.
func TestQuotaTogether(t *testing.T) {
	r := start(t, Config{Rules: rules{quota: 1000}})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			data := []byte(fmt.Sprintf("%0300d", i))
			r.do("POST", "/v2/a/blobs/uploads/?digest="+string(digest.FromBytes(data)), data)
		})
	}
	wg.Wait()
	if used, err := r.storage.Usage(t.Context(), "a"); err != nil || used != 900 {
		t.Errorf("%d bytes are used, %v", used, err)
	}
}

func TestAuthorizer(t *testing.T) {
	var asked []Access
	var answer error
	r := start(t, Config{Authorizer: allowing(func(_ *http.Request, want ...Access) (string, error) {
		asked = append(asked, want...)
		return "eva", answer
	})})
	both := []Access{{"a", Pull}, {"a", Push}}
	d := "sha256:" + strings.Repeat("0", 64)
	for request, want := range map[string][]Access{
		"GET /v2/":                              {{}},
		"GET /v2/_catalog":                      {{}},
		"GET /v2/a/tags/list":                   {{"a", Pull}},
		"HEAD /v2/a/manifests/x":                {{"a", Pull}},
		"PUT /v2/a/manifests/x":                 both,
		"DELETE /v2/a/manifests/x":              {{"a", Delete}},
		"GET /v2/a/blobs/" + d:                  {{"a", Pull}},
		"DELETE /v2/a/blobs/" + d:               {{"a", Delete}},
		"POST /v2/a/blobs/uploads/":             both,
		"GET /v2/a/blobs/uploads/1":             both,
		"PATCH /v2/a/blobs/uploads/1":           both,
		"PUT /v2/a/blobs/uploads/1?digest=" + d: both,
		"DELETE /v2/a/blobs/uploads/1":          both,
		"GET /v2/a/referrers/" + d:              {{"a", Pull}},
	} {
		method, path, _ := strings.Cut(request, " ")
		for _, no := range []struct {
			err    error
			status int
			code   code
		}{
			{&Challenge{`Basic realm="x"`, fault.New(fault.Unauthorized, "log in")}, 401, unauthorized},
			{&Challenge{`Basic realm="x"`, fmt.Errorf("no kind")}, 401, unauthorized},
			{forbidden(), 403, denied},
		} {
			asked, answer = nil, no.err
			a := r.do(method, path, nil)
			if method == "HEAD" {
				no.code = ""
			}
			r.want(a, no.status, no.code)
			if challenge := a.header.Get("WWW-Authenticate"); (challenge != "") != (no.status == 401) {
				t.Errorf("%s: %d with the challenge %q", request, no.status, challenge)
			}
			if !slices.Equal(asked, want) {
				t.Errorf("%s asks for %v, want %v", request, asked, want)
			}
		}
	}
}

// TestStorageFails: the client does not read the storage's words, the log does.
func TestStorageFails(t *testing.T) {
	var log bytes.Buffer
	store := newMemory()
	r := start(t, Config{Storage: store, Log: logTo(&log)})
	for _, c := range []struct {
		err    error
		status int
		code   code
	}{
		{fault.New(fault.Unavailable, "/srv/secret is full"), 503, unavailable},
		{fault.New(fault.Unavailable, "/srv/secret: %w", syscall.ENOSPC), 403, denied}, // Docker's clients show that sentence
		{fmt.Errorf("bug in /srv/secret"), 500, unknown},
	} {
		log.Reset()
		store.failing = c.err
		for _, request := range []string{"GET /v2/a/manifests/x", "POST /v2/a/blobs/uploads/", "GET /v2/a/blobs/sha256:" + strings.Repeat("0", 64)} {
			method, path, _ := strings.Cut(request, " ")
			if a := r.want(r.do(method, path, nil), c.status, c.code); strings.Contains(string(a.body), "secret") {
				t.Errorf("%s tells %s", request, a.body)
			}
		}
		if n := strings.Count(log.String(), "/srv/secret"); n != 3 {
			t.Errorf("%d of 3 failures are logged: %s", n, &log)
		}
	}
}

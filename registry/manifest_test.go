package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/registry/manifest"
)

const (
	ociImage = ocispec.MediaTypeImageManifest
	ociIndex = ocispec.MediaTypeImageIndex
)

func TestManifest(t *testing.T) {
	r := start(t, Config{})
	data, d := r.pushImage("a", "v1", nil)
	if d != digest.FromBytes(data) {
		t.Errorf("the digest is %s", d)
	}
	for item, cached := range map[string]string{"v1": "no-cache", string(d): "max-age=31536000, immutable"} {
		a := r.want(r.do("GET", "/v2/a/manifests/"+item, nil), 200, "")
		if !bytes.Equal(a.body, data) {
			t.Errorf("%s is %s", item, a.body)
		}
		for name, want := range map[string]string{"Content-Type": ociImage, "Docker-Content-Digest": string(d), "Etag": `"` + string(d) + `"`, "Cache-Control": cached, "Content-Length": itoa(int64(len(data)))} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s %s: %q", item, name, got)
			}
		}
		r.want(r.do("HEAD", "/v2/a/manifests/"+item, nil), 200, "")
		for _, condition := range []string{`"` + string(d) + `"`, string(d), `"x", W/"` + string(d) + `"`, "*"} {
			r.want(r.do("GET", "/v2/a/manifests/"+item, nil, "If-None-Match", condition), 304, "")
		}
		r.want(r.do("GET", "/v2/a/manifests/"+item, nil, "If-None-Match", `"x"`), 200, "")
	}
	r.want(r.do("GET", "/v2/a/manifests/v2", nil), 404, manifestUnknown)
	r.want(r.do("GET", "/v2/a/manifests/.v2", nil), 404, manifestUnknown)
	r.want(r.do("GET", "/v2/b/manifests/v1", nil), 404, manifestUnknown)
	r.want(r.do("GET", "/v2/a/manifests/sha256:0", nil), 400, digestInvalid)
	r.want(r.do("GET", "/v2/a/manifests/"+string(digest.FromString("x")), nil), 404, manifestUnknown)
}

func TestDeleteManifest(t *testing.T) {
	r := start(t, Config{})
	_, d := r.pushImage("a", "v1", nil)
	r.pushImage("a", "v2", nil)
	r.want(r.do("DELETE", "/v2/a/manifests/v1", nil), 202, "")
	r.want(r.do("DELETE", "/v2/a/manifests/v1", nil), 404, manifestUnknown)
	r.want(r.do("GET", "/v2/a/manifests/v2", nil), 200, "")
	r.want(r.do("DELETE", "/v2/a/manifests/"+string(d), nil), 202, "")
	r.want(r.do("DELETE", "/v2/a/manifests/"+string(d), nil), 404, manifestUnknown)
	r.want(r.do("GET", "/v2/a/manifests/v2", nil), 404, manifestUnknown)
	r.want(r.do("DELETE", "/v2/a/manifests/-v", nil), 404, manifestUnknown)
}

func TestPutManifest(t *testing.T) {
	r := start(t, Config{})
	r.pushBlob("a", []byte("{}"))
	r.pushBlob("a", []byte("layer"))
	data := image("{}", "layer", nil)
	d := digest.FromBytes(data)
	put := func(item string, data []byte, headers ...string) *answer {
		t.Helper()
		return r.do("PUT", "/v2/a/manifests/"+item, data, append([]string{"Content-Type", ociImage}, headers...)...)
	}
	a := r.want(put("v1", data), 201, "")
	if a.header.Get("Location") != "/v2/a/manifests/"+string(d) || a.header.Get("Docker-Content-Digest") != string(d) || a.header["Oci-Subject"] != nil || a.header["Oci-Tag"] != nil {
		t.Errorf("%v", a.header)
	}
	sha512 := digest.SHA512.FromBytes(data)
	a = r.want(put(string(sha512)+"?tag=long&tag=other&tag=long", data), 201, "")
	if a.header.Get("Docker-Content-Digest") != string(sha512) || a.header.Get("Oci-Tag") != "long, other" {
		t.Errorf("%v", a.header)
	}
	for _, tag := range []string{"long", "other"} {
		if got := r.do("HEAD", "/v2/a/manifests/"+tag, nil).header.Get("Docker-Content-Digest"); got != string(sha512) {
			t.Errorf("%s is %s", tag, got)
		}
	}
	r.want(put(string(d)+"?tag=ok&tag=-bad", data), 400, tagInvalid)
	r.want(r.do("GET", "/v2/a/manifests/ok", nil), 404, manifestUnknown)
	r.want(put("-bad", data), 400, tagInvalid)
	r.want(put("sha256:bad", data), 400, digestInvalid)
	r.want(put(string(digest.FromString("x")), data), 400, digestInvalid)
	many := "?"
	for i := range maxTags + 1 {
		many += fmt.Sprintf("tag=t%d&", i)
	}
	r.want(put(string(d)+many, data), 414, tagInvalid)
	r.want(put("v1", []byte("{")), 400, manifestInvalid)
	r.want(put("v1", nil), 400, manifestInvalid)
	r.want(put("v1", image("{}", "other", nil)), 400, manifestBlobUnknown)
	a = put("v1", image("no config", "other", nil))
	var e struct {
		Errors []struct {
			Code   code
			Detail struct{ Digest digest.Digest }
		}
	}
	if err := json.Unmarshal(a.body, &e); err != nil || len(e.Errors) != 2 || e.Errors[1].Code != manifestBlobUnknown || e.Errors[1].Detail.Digest != digest.FromString("other") {
		t.Errorf("two blobs are missing: %s", a.body)
	}
	subject := descriptorOf(ociImage, []byte("not there"))
	a = r.want(put("v2", image("{}", "layer", func(m *ocispec.Manifest) { m.Subject = &subject })), 201, "")
	if a.header.Get("Oci-Subject") != string(subject.Digest) {
		t.Errorf("%v", a.header)
	}
	foreign := image("{}", "layer", func(m *ocispec.Manifest) {
		m.Layers[0] = descriptorOf("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", []byte("elsewhere"))
		m.Layers[0].URLs = []string{"https://elsewhere.example/layer"}
	})
	r.want(put("v3", foreign), 201, "")
}

func TestManifestSize(t *testing.T) {
	r := start(t, Config{})
	r.pushBlob("a", []byte("{}"))
	r.pushBlob("a", []byte("layer"))
	grown := func(size int) []byte {
		data := image("{}", "layer", nil)
		return append(data, bytes.Repeat([]byte(" "), size-len(data))...)
	}
	r.want(r.do("PUT", "/v2/a/manifests/v1", grown(manifest.MaxSize), "Content-Type", ociImage), 201, "")
	r.want(r.do("PUT", "/v2/a/manifests/v1", grown(manifest.MaxSize+1), "Content-Type", ociImage), 413, sizeInvalid)
}

// TestHeavyManifests has clients that never end their large manifests take all
// places: small ones pass, a large one waits for a place.
func TestHeavyManifests(t *testing.T) {
	r := start(t, Config{})
	r.pushImage("a", "v0", nil)
	var slow []net.Conn
	for range heavyManifests {
		c := r.connect()
		fmt.Fprintf(c, "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", 2*lightManifest, strings.Repeat(" ", lightManifest))
		slow = append(slow, c)
	}
	testutil.Eventually(t, 10*time.Second, "all places are taken", func() bool { return len(r.api.heavy) == heavyManifests })
	r.pushImage("a", "v2", nil)
	large := append(image("{}", "layer", nil), bytes.Repeat([]byte(" "), lightManifest)...)
	put := func(ctx context.Context) int {
		w := newRecorder()
		req := httptest.NewRequestWithContext(ctx, "PUT", "/v2/a/manifests/v3", bytes.NewReader(large))
		req.Header.Set("Content-Type", ociImage)
		r.api.ServeHTTP(w, req)
		return w.Code
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if status := put(gone); status == 201 {
		t.Error("a large manifest did not wait until its client was gone")
	}
	slow[0].Close()
	if status := put(t.Context()); status != 201 {
		t.Errorf("after a place was free: status %d", status)
	}
	for _, c := range slow {
		c.Close()
	}
	testutil.Eventually(t, 10*time.Second, "all places are given back", func() bool { return len(r.api.heavy) == 0 })
}

// TestPutConditions has two clients change one tag.
func TestPutConditions(t *testing.T) {
	r := start(t, Config{})
	r.pushImage("a", "other", nil)
	put := func(comment string, headers ...string) *answer {
		data := image("{}", "layer", func(m *ocispec.Manifest) { m.Annotations = map[string]string{"comment": comment} })
		return r.do("PUT", "/v2/a/manifests/v1", data, append([]string{"Content-Type", ociImage}, headers...)...)
	}
	r.want(put("0", "If-Match", "*"), 412, denied)
	first := r.want(put("1", "If-None-Match", "*"), 201, "").header.Get("Etag")
	r.want(put("2", "If-None-Match", "*"), 412, denied)
	r.want(put("2", "If-Match", first), 201, "")
	r.want(put("3", "If-Match", first), 412, denied)
	r.want(put("3"), 201, "")
}

func TestAccept(t *testing.T) {
	r := start(t, Config{})
	_, one := r.pushImage("a", "image", nil)
	docker := strings.ReplaceAll(string(image("{}", "layer", nil)), ociImage, manifest.DockerImage)
	r.want(r.do("PUT", "/v2/a/manifests/docker", []byte(docker), "Content-Type", manifest.DockerImage), 201, "")
	entry := func(mediaType string, data []byte, os, arch string) ocispec.Descriptor {
		d := descriptorOf(mediaType, data)
		d.Platform = &ocispec.Platform{OS: os, Architecture: arch}
		return d
	}
	list := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifest.DockerList, Manifests: []ocispec.Descriptor{
		entry(manifest.DockerImage, []byte("not pushed"), "linux", "arm64"), entry(ociImage, image("{}", "layer", nil), "linux", "amd64"), entry(manifest.DockerImage, []byte(docker), "linux", "amd64")}}
	data, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	r.want(r.do("PUT", "/v2/a/manifests/list", data, "Content-Type", manifest.DockerList), 201, "")
	whole := digest.FromBytes(data)
	const schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	for _, c := range []struct {
		item, accept string
		want         digest.Digest // "" for a refusal
	}{
		{"image", "", one},
		{"image", "*/*", one},
		{"image", "application/json", one},
		{"image", schema1 + ", " + ociImage + ";q=0.5", one},
		{"image", manifest.DockerImage, ""},
		{"image", schema1, ""},
		{"image", "text/html", ""},
		{"docker", manifest.DockerImage, digest.FromString(docker)},
		{"docker", schema1, ""},
		{"list", manifest.DockerList, whole},
		{"list", manifest.DockerImage + "," + manifest.DockerList, whole},
		{"list", manifest.DockerImage, digest.FromString(docker)},
		{"list", ociImage, one},
		{"list", schema1, ""},
		{string(whole), manifest.DockerImage, ""},
	} {
		var headers []string
		if c.accept != "" {
			headers = []string{"Accept", c.accept}
		}
		a := r.do("GET", "/v2/a/manifests/"+c.item, nil, headers...)
		if c.want == "" {
			r.want(a, 404, manifestUnknown)
		} else if r.want(a, 200, ""); a.header.Get("Docker-Content-Digest") != string(c.want) || digest.FromBytes(a.body) != c.want {
			t.Errorf("%s for %q is %v", c.item, c.accept, a.header)
		}
	}
}

func TestReferrers(t *testing.T) {
	r := start(t, Config{})
	subject := descriptorOf(ociImage, []byte("not there"))
	push := func(tag, kind string) digest.Digest {
		_, d := r.pushImage("a", tag, func(m *ocispec.Manifest) {
			m.Subject, m.ArtifactType, m.Annotations = &subject, kind, map[string]string{"is": tag}
		})
		return d
	}
	sbom, signature := push("sbom", "application/sbom"), push("signature", "")
	list := func(query string) (map[digest.Digest]ocispec.Descriptor, http.Header) {
		t.Helper()
		a := r.want(r.do("GET", "/v2/a/referrers/"+query, nil), 200, "")
		var index ocispec.Index
		if err := json.Unmarshal(a.body, &index); err != nil || index.MediaType != ociIndex || index.SchemaVersion != 2 || index.Manifests == nil || a.header.Get("Content-Type") != ociIndex {
			t.Fatalf("%s %v", a.body, err)
		}
		all := map[digest.Digest]ocispec.Descriptor{}
		for _, m := range index.Manifests {
			all[m.Digest] = m
		}
		return all, a.header
	}
	all, header := list(string(subject.Digest))
	if len(all) != 2 || all[sbom].ArtifactType != "application/sbom" || all[sbom].Annotations["is"] != "sbom" || all[signature].ArtifactType != ocispec.MediaTypeImageConfig || header["Oci-Filters-Applied"] != nil {
		t.Errorf("%+v %v", all, header)
	}
	all, header = list(string(subject.Digest) + "?artifactType=application/sbom")
	if len(all) != 1 || all[sbom].MediaType != ociImage || header.Get("Oci-Filters-Applied") != "artifactType" {
		t.Errorf("%+v %v", all, header)
	}
	if all, _ := list(string(digest.FromString("unknown"))); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	r.want(r.do("GET", "/v2/a/referrers/sha256:0", nil), 400, digestInvalid)
	r.want(r.do("GET", "/v2/nowhere/referrers/"+string(subject.Digest), nil), 200, "")
}

// TestReferrersPages has more referrers than one answer takes.
func TestReferrersPages(t *testing.T) {
	r := start(t, Config{})
	subject := descriptorOf(ociImage, []byte("not there"))
	want := map[digest.Digest]bool{}
	for i := range 40 {
		_, d := r.pushImage("a", "v"+itoa(int64(i)), func(m *ocispec.Manifest) {
			m.Subject, m.ArtifactType, m.Annotations = &subject, "a/b c&d", map[string]string{"is": itoa(int64(i)) + strings.Repeat("x", 60<<10)}
		})
		want[d] = true
	}
	path, pages := "/v2/a/referrers/"+string(subject.Digest)+"?artifactType=a%2Fb+c%26d", 0
	for path != "" {
		a := r.want(r.do("GET", path, nil), 200, "")
		var index ocispec.Index
		if err := json.Unmarshal(a.body, &index); err != nil || len(a.body) > maxReferrersPage+10 {
			t.Fatalf("%d bytes, %v", len(a.body), err)
		}
		for _, m := range index.Manifests {
			if !want[m.Digest] {
				t.Fatalf("%s is twice there, or no referrer", m.Digest)
			}
			delete(want, m.Digest)
		}
		path, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
		pages++
	}
	if len(want) != 0 || pages != 2 {
		t.Errorf("%d are missing on %d pages", len(want), pages)
	}
	r.want(r.do("GET", "/v2/a/referrers/"+string(subject.Digest)+"?last=x", nil), 400, digestInvalid)
}

// TestTagsAreLocked pushes two tags while somebody looks at a condition on one.
func TestTagsAreLocked(t *testing.T) {
	r := start(t, Config{})
	data, d := r.pushImage("a", "v1", nil)
	unlock, err := r.api.tagging.Lock(t.Context(), "a:v2")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequest("PUT", "/v2/a/manifests/"+string(d)+"?tag=v3&tag=v2", bytes.NewReader(data)).WithContext(ctx)
	req.Header.Set("Content-Type", ociImage)
	w := newRecorder()
	r.api.ServeHTTP(w, req)
	if w.Code == 201 {
		t.Error("the tag was set meanwhile")
	}
	for _, tag := range []string{"v2", "v3"} {
		r.want(r.do("GET", "/v2/a/manifests/"+tag, nil), 404, manifestUnknown)
	}
}

func TestHasty(t *testing.T) {
	for late, want := range map[time.Duration]bool{-time.Second: false, time.Minute: true} {
		_, err := io.ReadAll(&hasty{strings.NewReader("x"), time.Now().Add(late)})
		if (err == nil) != want {
			t.Errorf("%v: %v", late, err)
		}
	}
}

package buildkit

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/test/daemon"
)

// at is a repository of a registry.
type at string

func (a at) ask(t *testing.T, method, path string, head http.Header, body []byte) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = head
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %v\n%s", method, path, resp.Status, err, text)
	}
	return resp, text
}

func (a at) put(t *testing.T, data []byte) digest.Digest {
	t.Helper()
	resp, _ := a.ask(t, http.MethodPost, string(a)+"/blobs/uploads/", http.Header{}, nil)
	to, err := resp.Location()
	if err != nil {
		t.Fatal(err)
	}
	d, q := digest.FromBytes(data), to.Query()
	q.Set("digest", d.String())
	to.RawQuery = q.Encode()
	a.ask(t, http.MethodPut, to.String(), http.Header{}, data)
	return d
}

func (a at) manifest(t *testing.T, tag string) (m ocispec.Manifest) {
	t.Helper()
	_, text := a.ask(t, http.MethodGet, string(a)+"/manifests/"+tag, http.Header{"Accept": {ocispec.MediaTypeImageManifest}}, nil)
	if err := json.Unmarshal(text, &m); err != nil || len(m.Layers) == 0 {
		t.Fatalf("%v: %s", err, text)
	}
	return m
}

// evilLayer is an archive, compressed, in which /made says something else.
func evilLayer(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "made", Mode: 0o644, Size: 5}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("evil\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestLyingRegistry has a cache at a registry name blobs for layers that do not hold
// them. Who has nothing makes the layer himself; who has it, and pushes, pushes his own.
func TestLyingRegistry(t *testing.T) {
	hub := registry(t, "")
	cache := at("http://" + hub + "/v2/cache")
	dir := write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM busybox\nRUN echo made > /made\nRUN cat /made /made > /twice\n"})
	honest := daemon.Start(t)
	honest.ImportBusybox(t)
	honest.Tare(t, "build", "-q", "--cache-to", "type=registry,ref="+hub+"/cache:true,mode=max", dir)
	m := cache.manifest(t, "true")
	_, text := cache.ask(t, http.MethodGet, string(cache)+"/blobs/"+m.Config.Digest.String(), http.Header{}, nil)
	evil := evilLayer(t)
	lie := string(text)
	cache.put(t, evil)
	for i := range m.Layers {
		if i == 0 { // busybox
			continue
		}
		lie = strings.ReplaceAll(lie, m.Layers[i].Digest.String(), digest.FromBytes(evil).String())
		m.Layers[i].Digest, m.Layers[i].Size, m.Layers[i].MediaType = digest.FromBytes(evil), int64(len(evil)), ocispec.MediaTypeImageLayerGzip
	}
	if lie == string(text) || len(m.Layers) < 3 {
		t.Fatalf("the cache has no layers to lie about: %+v %s", m, text)
	}
	m.Config.Digest, m.Config.Size = cache.put(t, []byte(lie)), int64(len(lie))
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	cache.ask(t, http.MethodPut, string(cache)+"/manifests/lie", http.Header{"Content-Type": {ocispec.MediaTypeImageManifest}}, data)

	empty := daemon.Start(t)
	empty.ImportBusybox(t)
	has := func(d *daemon.Daemon, name string) {
		t.Helper()
		if got := d.Tare(t, "run", "--rm", "--network", "none", name, "cat", "/made", "/twice"); got != "made\nmade\nmade" {
			t.Errorf("the image has %q", got)
		}
	}
	for name, d := range map[string]*daemon.Daemon{"empty": empty, "honest": honest} {
		t.Run(name, func(t *testing.T) {
			image := hub + "/" + name + ":1"
			d.Tare(t, "build", "-q", "-t", image, "--cache-from", "type=registry,ref="+hub+"/cache:lie", "--cache-to", "type=registry,ref="+hub+"/cache:"+name+",mode=max", dir)
			has(d, image)
			d.Tare(t, "push", "-q", image)
			for _, pushed := range []ocispec.Manifest{at("http://"+hub+"/v2/"+name).manifest(t, "1"), cache.manifest(t, name)} {
				for _, l := range pushed.Layers {
					if l.Digest == digest.FromBytes(evil) {
						t.Errorf("the lie was passed on: %+v", pushed)
					}
				}
			}
			d.Tare(t, "rmi", image)
			d.Tare(t, "pull", "-q", image)
			has(d, image)
		})
	}
}

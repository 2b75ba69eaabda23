package faulty

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// fetch gets the path over a connection of its own.
func fetch(t *testing.T, p *Proxy, client *http.Client, path, bytesRange string) (status int, body []byte, err error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, p.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	if bytesRange != "" {
		req.Header.Set("Range", bytesRange)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

func TestFaults(t *testing.T) {
	for _, secure := range []bool{false, true} {
		r := registry.Start(t, registry.Options{TLS: secure})
		img := images.Make(t, images.Spec{Files: 20, Size: 10_000})
		images.Copy(t, img.Ref(), "docker://"+r.Host+"/made:v1")
		p := Start(t, Options{Registry: r})
		client := r.Client()
		layer := img.Layers[0]
		path := "/v2/made/blobs/" + layer.Digest.String()
		status, whole, err := fetch(t, p, client, path, "")
		if err != nil || status != 200 || int64(len(whole)) != layer.Size {
			t.Fatalf("status %d, %d bytes, %v", status, len(whole), err)
		}
		if p.Count(Blobs(layer.Digest.String())) != 1 || p.Sent(Blobs()) != layer.Size {
			t.Errorf("%+v", p.Requests(nil))
		}

		p.On(Always(Blobs(), Fault{Cut: true, CutAfter: 1000}))
		if _, body, err := fetch(t, p, client, path, ""); err == nil || !bytes.Equal(body, whole[:1000]) {
			t.Errorf("cut: %d bytes, %v", len(body), err)
		}
		p.On(Always(Blobs(), Fault{Cut: true, CutAfter: 1000, Reset: true}))
		if _, body, err := fetch(t, p, client, path, ""); err == nil || len(body) > 1000 {
			t.Errorf("reset: %d bytes, %v", len(body), err)
		}
		p.On(Always(Blobs(), Fault{Corrupt: true, CorruptAt: 40_000}))
		if _, body, err := fetch(t, p, client, path, ""); err != nil || len(body) != len(whole) || body[40_000] != whole[40_000]^0xff || !bytes.Equal(body[:40_000], whole[:40_000]) {
			t.Errorf("corrupt: %d bytes, %v", len(body), err)
		}
		p.On(Always(Blobs(), Fault{Length: layer.Size + 5}))
		if _, body, err := fetch(t, p, client, path, ""); !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(body, whole) {
			t.Errorf("long: %d bytes, %v", len(body), err)
		}
		p.On(Always(Blobs(), Fault{Length: 100}))
		if _, body, _ := fetch(t, p, client, path, ""); !bytes.Equal(body, whole[:100]) {
			t.Errorf("short: %d bytes", len(body))
		}
		p.On(nil)
		if status, body, err := fetch(t, p, client, path, "bytes=10-19"); err != nil || status != 206 || !bytes.Equal(body, whole[10:20]) {
			t.Errorf("range: %d, %d bytes, %v", status, len(body), err)
		}
		p.On(Always(Blobs(), Fault{IgnoreRange: true}))
		if status, body, err := fetch(t, p, client, path, "bytes=10-19"); err != nil || status != 200 || !bytes.Equal(body, whole) {
			t.Errorf("ignored range: %d, %d bytes, %v", status, len(body), err)
		}
		p.Forget()
		p.On(First(2, Blobs(), Fault{Status: 503, Header: http.Header{"Retry-After": {"0"}}, Body: "not now"}))
		for i, want := range []int{503, 503, 200} {
			if status, _, err := fetch(t, p, client, path, ""); err != nil || status != want {
				t.Errorf("%d: %d, %v", i, status, err)
			}
		}
		p.On(Always(Blobs(), Fault{Chunked: true, Rate: 100_000_000}))
		if _, body, err := fetch(t, p, client, path, ""); err != nil || !bytes.Equal(body, whole) {
			t.Errorf("chunked: %d bytes, %v", len(body), err)
		}

		elsewhere := Start(t, Options{Registry: r, Plain: true})
		p.On(Always(Blobs(), Fault{Redirect: elsewhere.URL + path}))
		if _, body, err := fetch(t, p, client, path, ""); err != nil || !bytes.Equal(body, whole) || elsewhere.Count(nil) != 1 {
			t.Errorf("redirected: %d bytes, %v", len(body), err)
		}
		if !strings.HasPrefix(elsewhere.URL, "http://") {
			t.Errorf("the other speaks %s", elsewhere.URL)
		}
	}
}

// What is pushed through the proxy arrives, and the upload's address is that
// of the proxy.
func TestPushThrough(t *testing.T) {
	for _, secure := range []bool{false, true} {
		r := registry.Start(t, registry.Options{TLS: secure})
		p := Start(t, Options{Registry: r})
		img := images.Make(t, images.Spec{Files: 20, Size: 10_000, Layers: 2})
		images.Copy(t, img.Ref(), "docker://"+p.Host+"/made:v1")
		if _, err := r.Get("/v2/made/manifests/"+img.Manifest.Digest.String(), img.Manifest.MediaType); err != nil {
			t.Error(err)
		}
		var received int64
		for _, q := range p.Requests(nil) {
			received += q.Received
		}
		if received < img.Layers[0].Size+img.Layers[1].Size {
			t.Errorf("%d bytes went through the proxy", received)
		}
		p.On(Always(Path(http.MethodPatch, "/blobs/uploads/"), Fault{CutUpload: true, UploadTo: 100}))
		other := images.Make(t, images.Spec{Seed: 1})
		if err := images.Skopeo(other.Ref(), "docker://"+p.Host+"/made:v2"); err == nil {
			t.Error("skopeo does not notice that its uploads are cut")
		}
	}
}

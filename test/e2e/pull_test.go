package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// behind is an image in a registry, with a proxy in front and a daemon that
// pulls through it.
func behind(t *testing.T, spec images.Spec, flags ...string) (*daemon.Daemon, *faulty.Proxy, *images.Image, string) {
	t.Helper()
	testutil.RequireRoot(t)
	r := registry.Start(t, registry.Options{})
	img := images.Make(t, spec)
	images.Copy(t, img.Ref(), "docker://"+r.Host+"/faulty:1")
	p := faulty.Start(t, faulty.Options{Registry: r})
	return daemon.Start(t, flags...), p, img, p.Host + "/faulty:1"
}

func imageID(t *testing.T, d *daemon.Daemon, ref string) string {
	t.Helper()
	return d.Tare(t, "image", "inspect", "-f", "{{.Id}}", ref)
}

// What networks and servers do wrong for a while, a pull gets over.
func TestPullThroughFaults(t *testing.T) {
	d, p, img, ref := behind(t, images.Spec{Layers: 3, Files: 30, Size: 40_000})
	cut := func(r *faulty.Request) *faulty.Fault { // wherever it goes on, after some more
		if r.Blob() != "" && r.Nth < 4 {
			return &faulty.Fault{Cut: true, CutAfter: 50_000, Reset: r.Nth%2 == 1}
		}
		return nil
	}
	manifests := func(r *faulty.Request) bool { return strings.Contains(r.Path, "/manifests/") }
	later := http.Header{"Retry-After": {"0"}}
	for name, fault := range map[string]func(*faulty.Request) *faulty.Fault{
		"cut":            cut,
		"429":            faulty.First(2, faulty.Blobs(), faulty.Fault{Status: 429, Header: later}),
		"503":            faulty.First(2, faulty.Blobs(), faulty.Fault{Status: 503, Header: later}),
		"503 manifests":  faulty.First(2, manifests, faulty.Fault{Status: 503, Header: later}),
		"no ranges":      faulty.Always(faulty.Blobs(), faulty.Fault{IgnoreRange: true}),
		"no length":      faulty.Always(faulty.Blobs(), faulty.Fault{Chunked: true}),
		"cut, no ranges": whole(cut),
		"slow":           faulty.Always(faulty.Blobs(img.Layers[1].Digest.String()), faulty.Fault{Rate: 1 << 20}),
	} {
		p.Forget()
		p.On(fault)
		if _, err := d.Try("pull", "-q", ref); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if id := imageID(t, d, ref); id != img.Manifest.Digest.String() {
			t.Errorf("%s: the image is %s", name, id)
		}
		d.Tare(t, "rmi", ref)
	}
}

// whole does the first two of the faults, and answers no range.
func whole(fault func(*faulty.Request) *faulty.Fault) func(*faulty.Request) *faulty.Fault {
	return func(r *faulty.Request) *faulty.Fault {
		f := faulty.Fault{}
		if got := fault(r); got != nil && r.Nth < 2 {
			f = *got
		}
		f.IgnoreRange = true
		return &f
	}
}

// What stays wrong is an error in words, and leaves no image and nothing that
// an honest registry's answer does not put right.
func TestPullOfLies(t *testing.T) {
	d, p, img, ref := behind(t, images.Spec{Layers: 2, Files: 30, Size: 40_000}, "--max-download-attempts", "2")
	layer := faulty.Blobs(img.Layers[0].Digest.String())
	for name, c := range map[string]struct {
		fault faulty.Fault
		match func(*faulty.Request) bool
	}{
		"corrupt":          {faulty.Fault{Corrupt: true, CorruptAt: 1000}, layer},
		"corrupt start":    {faulty.Fault{Corrupt: true}, layer},
		"short":            {faulty.Fault{Length: 1000}, layer},
		"long":             {faulty.Fault{Length: img.Layers[0].Size + 100}, layer},
		"endless":          {faulty.Fault{Endless: 'x'}, layer},
		"not found":        {faulty.Fault{Status: 404}, layer},
		"forbidden":        {faulty.Fault{Status: 403}, layer},
		"empty":            {faulty.Fault{Status: 200}, layer},
		"html":             {faulty.Fault{Status: 200, Body: "<html>log in here</html>", Header: http.Header{"Content-Type": {"text/html"}}}, layer},
		"wrong range":      {faulty.Fault{Status: 206, Body: "x", Header: http.Header{"Content-Range": {"bytes 5-5/6"}}}, layer},
		"corrupt config":   {faulty.Fault{Corrupt: true, CorruptAt: 10}, faulty.Blobs(configOf(t, img))},
		"other manifest":   {faulty.Fault{Corrupt: true, CorruptAt: 30}, faulty.Path(http.MethodGet, "/manifests/")},
		"endless manifest": {faulty.Fault{Endless: ' '}, faulty.Path(http.MethodGet, "/manifests/")},
	} {
		p.Forget()
		p.On(faulty.Always(c.match, c.fault))
		out, err := d.Try("pull", "-q", ref)
		if err == nil && name != "endless" { // whose beginning is right
			t.Errorf("%s is no error: %s", name, out)
		}
		if err == nil {
			d.Tare(t, "rmi", ref)
		} else if _, err := d.Try("image", "inspect", ref); err == nil {
			t.Errorf("%s has left an image", name)
		}
		p.On(nil)
		if _, err := d.Try("pull", "-q", ref); err != nil {
			t.Errorf("honest after %s: %v", name, err)
			continue
		}
		if id := imageID(t, d, ref); id != img.Manifest.Digest.String() {
			t.Errorf("after %s the image is %s", name, id)
		}
		d.Tare(t, "rmi", ref)
	}
}

func configOf(t *testing.T, img *images.Image) string {
	t.Helper()
	m := struct{ Config struct{ Digest string } }{}
	readJSON(t, images.Layout(img.Dir).Path(img.Manifest.Digest), &m)
	return m.Config.Digest
}

// A registry over HTTPS that sends its clients to plain HTTP, with a blob or for
// a token, is not followed.
func TestNoDowngrade(t *testing.T) {
	testutil.RequireRoot(t)
	r := registry.Start(t, registry.Options{TLS: true})
	img := images.Make(t, images.Spec{Layers: 2})
	images.Copy(t, img.Ref(), "docker://"+r.Host+"/x:1")
	p := faulty.Start(t, faulty.Options{Registry: r})
	plain := faulty.Start(t, faulty.Options{Registry: r, Plain: true})
	hosts := t.TempDir()
	trust(t, hosts, p.Host, p.CA)
	d := daemon.Start(t, "--registry-hosts-dir", hosts)
	ref := p.Host + "/x:1"
	blob := func(r *faulty.Request) *faulty.Fault {
		if r.Blob() != "" {
			return &faulty.Fault{Redirect: plain.URL + r.Path}
		}
		return nil
	}
	token := faulty.Always(func(*faulty.Request) bool { return true }, faulty.Fault{Status: 401,
		Header: http.Header{"Www-Authenticate": {fmt.Sprintf(`Bearer realm="%s/token",service="x"`, plain.URL)}}})
	for name, f := range map[string]func(*faulty.Request) *faulty.Fault{"blob": blob, "token": token} {
		p.On(f)
		if out, err := d.Try("pull", "-q", ref); err == nil {
			t.Errorf("%s: it is followed to HTTP: %s", name, out)
		}
		if n := plain.Count(nil); n != 0 {
			t.Errorf("%s: %d requests came over HTTP", name, n)
		}
	}
	// Nothing of that is remembered when the registry is right again.
	p.On(nil)
	d.Tare(t, "pull", "-q", ref)
}

// trust puts an authority's certificate where the daemon looks for it.
func trust(t *testing.T, hosts, host, ca string) {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(hosts, host), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(hosts, host, "ca.crt"), pem, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A pull that the daemon's death ended goes on where it stopped.
func TestPullGoesOnAfterAKill(t *testing.T) {
	const size = 24 << 20
	d, p, img, ref := behind(t, images.Spec{Files: 1, Size: size, Compression: "none"})
	layer := img.Layers[0].Digest.String()
	p.On(faulty.Always(faulty.Blobs(layer), faulty.Fault{Stall: true, CutAfter: size / 2}))
	var pulling sync.WaitGroup
	pulling.Go(func() {
		if out, err := d.Try("pull", "-q", ref); err == nil {
			t.Errorf("the pull ended well: %s", out)
		}
	})
	// What the proxy sent is not all read yet; the partial file says what is.
	testutil.Eventually(t, 30*time.Second, "half of the layer has come", func() bool {
		st, err := os.Stat(filepath.Join(d.Dir, "data/content/partial", fmt.Sprintf("%s-%d", strings.Replace(layer, ":", "-", 1), img.Layers[0].Size)))
		return err == nil && st.Size() >= size/2
	})
	d.Signal(t, syscall.SIGKILL)
	pulling.Wait()
	p.Forget()
	p.On(nil)
	d.Up(t)
	d.Tare(t, "pull", "-q", ref)
	if sent := p.Sent(faulty.Blobs(layer)); sent > size/2+(1<<20) {
		t.Errorf("%d of %d bytes were fetched again: %+v", sent, img.Layers[0].Size, p.Requests(faulty.Blobs(layer)))
	}
	if id := imageID(t, d, ref); id != img.Manifest.Digest.String() {
		t.Errorf("the image is %s", id)
	}
	d.Tare(t, "save", "-o", "/dev/null", ref) // which checks the digests
}

// Two clients that pull images with layers in common fetch each layer once.
func TestPullsShareLayers(t *testing.T) {
	testutil.RequireRoot(t)
	r := registry.Start(t, registry.Options{})
	img := images.Make(t, images.Spec{Layers: 3, Files: 10})
	more, err := images.Write(img.Dir, images.Spec{On: img, Seed: 9, Tag: "more"})
	if err != nil {
		t.Fatal(err)
	}
	images.Copy(t, img.Ref(), "docker://"+r.Host+"/a:1")
	images.Copy(t, more.Ref(), "docker://"+r.Host+"/b:1")
	p := faulty.Start(t, faulty.Options{Registry: r})
	d := daemon.Start(t)
	// No layer comes before both have asked for their manifests.
	both := make(chan struct{})
	var asked sync.Map
	p.On(func(r *faulty.Request) *faulty.Fault {
		if strings.Contains(r.Path, "/manifests/") && r.Method == http.MethodGet {
			asked.Store(strings.Split(r.Path, "/")[2], true)
			_, a := asked.Load("a")
			if _, b := asked.Load("b"); a && b {
				select {
				case <-both:
				default:
					close(both)
				}
			}
		}
		if b := r.Blob(); b == img.Layers[0].Digest.String() {
			return &faulty.Fault{Wait: both}
		}
		return nil
	})
	var pulls sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		pulls.Go(func() {
			if _, err := d.Try("pull", "-q", p.Host+"/"+name+":1"); err != nil {
				t.Error(err)
			}
		})
	}
	pulls.Wait()
	for _, l := range more.Layers {
		if n := p.Count(faulty.Blobs(l.Digest.String())); n != 1 {
			t.Errorf("layer %s was asked for %d times", l.Digest, n)
		}
	}
}

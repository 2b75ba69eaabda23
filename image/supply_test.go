package image

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/remote"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// stalled is where a registry stops: beyond a half of the layer.
const stalled = 5 << 20

// twoRegistries are proxies with one image, which has one layer.
type twoRegistries struct {
	fixture
	*Transfers
	bad, good *faulty.Proxy
	layer     ocispec.Descriptor
	is        func(*faulty.Request) bool // a request for the layer
}

func newTwoRegistries(t *testing.T, o registry.Options) *twoRegistries {
	t.Helper()
	testutil.RequireRoot(t)
	reg := registry.Start(t, o)
	img := images.Make(t, images.Spec{Layers: 1, Files: 4, Size: 1 << 20, Compression: "none"})
	flags := []string{"--dest-tls-verify=false"}
	for user, password := range o.Htpasswd {
		flags = append(flags[:1], "--dest-creds", user+":"+password)
	}
	images.Copy(t, img.Ref(), "docker://"+reg.Host+"/a:1", flags...)
	two := &twoRegistries{layer: img.Layers[0], is: faulty.Blobs(img.Layers[0].Digest.String()),
		bad: faulty.Start(t, faulty.Options{Registry: reg}), good: faulty.Start(t, faulty.Options{Registry: reg})}
	if two.layer.Size < stalled || two.layer.Size/2 > stalled {
		t.Fatalf("the layer has %d bytes", two.layer.Size)
	}
	two.fixture, two.Transfers = transfers(t, t.TempDir())
	return two
}

// begin pulls from a registry, and returns when the pull has joined the
// download of the layer.
func (two *twoRegistries) begin(ctx context.Context, t *testing.T, p *faulty.Proxy, who Credentials) (ended chan error) {
	t.Helper()
	ended = make(chan error, 1)
	joined := func() (n int) {
		two.downloads.mu.Lock()
		defer two.downloads.mu.Unlock()
		for _, dl := range two.downloads.active {
			if dl.blob.digest == two.layer.Digest {
				n += len(dl.supply.list)
			}
		}
		return n
	}
	before := joined()
	go func() {
		ended <- two.Pull(ctx, p.Host+"/a:1", PullOptions{Credentials: who}, func(Progress) {})
	}()
	testutil.Eventually(t, time.Minute, "the pull waits for the layer", func() bool { return joined() > before || len(ended) > 0 })
	return ended
}

// half waits until the layer has come half from the bad registry.
func (two *twoRegistries) half(t *testing.T) {
	t.Helper()
	testutil.Eventually(t, time.Minute, "half of the layer has come", func() bool {
		two.downloads.mu.Lock()
		dl := two.downloads.active[blob{two.layer.Digest, two.layer.Size}]
		two.downloads.mu.Unlock()
		return dl != nil && dl.have() >= two.layer.Size/2
	})
}

func (two *twoRegistries) whole(t *testing.T, p *faulty.Proxy) {
	t.Helper()
	if got, err := two.Resolve(t.Context(), p.Host+"/a:1"); err != nil || !two.layers.Has(got.ChainID) {
		t.Errorf("the image is not whole: %v", err)
	}
}

// A registry that stands still, or is slow for its own sake, holds up no pull
// from another one, which goes on where it stopped.
func TestStallingRegistry(t *testing.T) {
	for name, f := range map[string]faulty.Fault{
		"stalls":   {Stall: true, CutAfter: stalled},
		"trickles": {Rate: 30_000},
	} {
		two := newTwoRegistries(t, registry.Options{})
		two.downloads.window = 200 * time.Millisecond
		two.bad.On(faulty.Always(two.is, f))
		first := two.begin(t.Context(), t, two.bad, Credentials{})
		if name == "stalls" {
			two.half(t)
		}
		second := two.begin(t.Context(), t, two.good, Credentials{})
		for _, ended := range []chan error{first, second} {
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		two.whole(t, two.bad)
		two.whole(t, two.good)
		if sent := two.good.Sent(two.is); name == "stalls" && sent > two.layer.Size-stalled+64<<10 {
			t.Errorf("%d bytes of %d were fetched anew", sent, two.layer.Size)
		}
	}
}

// Wrong bytes are dropped and come from the other registry, whether all are one
// registry's or nobody knows whose they are.
func TestLyingRegistry(t *testing.T) {
	for name, f := range map[string]faulty.Fault{
		"all of it":  {Corrupt: true, CorruptAt: 5000},
		"the tar":    {Corrupt: true, CorruptAt: 2},
		"half of it": {Corrupt: true, CorruptAt: 5000, Cut: true, CutAfter: stalled},
	} {
		two := newTwoRegistries(t, registry.Options{})
		joined := make(chan struct{})
		f.Wait = joined
		two.bad.On(faulty.Always(two.is, f))
		first := two.begin(t.Context(), t, two.bad, Credentials{})
		second := two.begin(t.Context(), t, two.good, Credentials{})
		close(joined)
		for _, ended := range []chan error{first, second} {
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		two.whole(t, two.good)
		if name == "half of it" {
			continue // the good one may be asked for all of it at once, or for the rest and then for all
		}
		if n := two.bad.Count(two.is); n != 1 {
			t.Errorf("%s: the liar was asked %d times", name, n)
		}
	}
}

// One that alone is asked, and lies, ends its pull, and does so in its name.
func TestLyingRegistryAlone(t *testing.T) {
	two := newTwoRegistries(t, registry.Options{})
	two.bad.On(faulty.Always(two.is, faulty.Fault{Corrupt: true, CorruptAt: 5000}))
	err := <-two.begin(t.Context(), t, two.bad, Credentials{})
	if !errors.Is(err, fault.Invalid) || !strings.HasPrefix(fmt.Sprint(err), two.bad.Host+" sent wrong bytes: content has the digest sha256:") {
		t.Error(err)
	}
	if left, _ := os.ReadDir(two.root + "/content/partial"); len(left) != 0 {
		t.Errorf("partial/ holds %v", left)
	}
}

// With its last pull a registry goes, and the others do not wait for it.
func TestRegistryGoesWithItsPull(t *testing.T) {
	two := newTwoRegistries(t, registry.Options{})
	two.bad.On(faulty.Always(two.is, faulty.Fault{Stall: true, CutAfter: stalled}))
	ctx, giveUp := context.WithCancel(t.Context())
	first := two.begin(ctx, t, two.bad, Credentials{})
	two.half(t)
	second := two.begin(t.Context(), t, two.good, Credentials{})
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	two.whole(t, two.good)
	if n, sent := two.bad.Count(two.is), two.good.Sent(two.is); n != 1 || sent > two.layer.Size-stalled+64<<10 {
		t.Errorf("the one that went was asked %d times, the other sent %d bytes of %d", n, sent, two.layer.Size)
	}
}

// Each registry is asked as the user of its own pull.
func TestCredentialsStayApart(t *testing.T) {
	users := map[string]string{"ann": "secret", "bob": "hush"}
	two := newTwoRegistries(t, registry.Options{Htpasswd: users})
	two.downloads.window = 200 * time.Millisecond
	two.bad.On(faulty.Always(two.is, faulty.Fault{Stall: true, CutAfter: stalled}))
	first := two.begin(t.Context(), t, two.bad, Credentials{Username: "ann", Password: "secret"})
	two.half(t)
	second := two.begin(t.Context(), t, two.good, Credentials{Username: "bob", Password: "hush"})
	for _, ended := range []chan error{first, second} {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for p, user := range map[*faulty.Proxy]string{two.bad: "ann", two.good: "bob"} {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+users[user]))
		if p.Count(two.is) == 0 {
			t.Errorf("%s's registry was not asked for the layer", user)
		}
		for _, r := range p.Requests((*faulty.Request).Authorized) {
			if got := r.Header.Get("Authorization"); got != want {
				t.Errorf("%s's registry got %s", user, got)
			}
		}
	}
}

// When all fail each pull is told what its own registry said; while one does
// not, nobody is.
func TestRegistriesFail(t *testing.T) {
	two := newTwoRegistries(t, registry.Options{})
	for _, both := range []bool{false, true} {
		joined := make(chan struct{})
		two.bad.On(faulty.Always(two.is, faulty.Fault{Wait: joined, Status: 404}))
		if both {
			two.good.On(faulty.Always(two.is, faulty.Fault{Status: 403}))
		}
		first := two.begin(t.Context(), t, two.bad, Credentials{})
		second := two.begin(t.Context(), t, two.good, Credentials{})
		close(joined)
		if err := <-first; both != errors.Is(err, fault.NotFound) || !both && err != nil {
			t.Errorf("both: %v; the first says %v", both, err)
		}
		if err := <-second; both != errors.Is(err, fault.Forbidden) || !both && err != nil {
			t.Errorf("both: %v; the second says %v", both, err)
		}
		for _, p := range []*faulty.Proxy{two.bad, two.good} {
			two.Remove(t.Context(), p.Host+"/a:1", RemoveOptions{})
		}
	}
}

// A registry that stands still holds up no other, however many layers it has.
func TestStallingRegistryHoldsUpNoOther(t *testing.T) {
	testutil.RequireRoot(t)
	reg := registry.Start(t, registry.Options{})
	bad := faulty.Start(t, faulty.Options{Registry: reg})
	var layers []string
	for _, l := range published(t, reg.Host, "slow:1", images.Spec{Layers: 8, Files: 1, Size: 100_000}).Layers {
		layers = append(layers, l.Digest.String())
	}
	published(t, reg.Host, "fast:1", images.Spec{Layers: 3, Files: 1, Size: 1000, Seed: 7})
	is := faulty.Blobs(layers...)
	bad.On(faulty.Always(is, faulty.Fault{Stall: true, CutAfter: 1000}))
	f, tr := transfers(t, t.TempDir())
	slow, giveUp := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tr.Pull(slow, bad.Host+"/slow:1", PullOptions{}, func(Progress) {}) }()
	testutil.Eventually(t, time.Minute, "layers are asked for", func() bool { return bad.Count(is) == 3 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := tr.Pull(ctx, reg.Host+"/fast:1", PullOptions{}, func(Progress) {}); err != nil {
		t.Error(err)
	}
	if n := bad.Count(is); n != 3 {
		t.Errorf("%d layers are fetched at a time", n)
	}
	giveUp()
	<-ended
	if got, err := f.Resolve(t.Context(), reg.Host+"/fast:1"); err != nil || !f.layers.Has(got.ChainID) {
		t.Error(err)
	}
}

// Who says that a layer has another size than it has keeps nobody waiting.
func TestWrongSizeIsAnotherDownload(t *testing.T) {
	testutil.RequireRoot(t)
	l := newLiar(t)
	layer := l.blob(ocispec.MediaTypeImageLayer, rootfs(t, file{"a", strings.Repeat("1", 100_000)}))
	longer := layer
	longer.Size++
	l.image("wrong", longer)
	l.image("right", layer)
	bad := faulty.Start(t, faulty.Options{Handler: l})
	is := faulty.Blobs(layer.Digest.String())
	bad.On(faulty.Always(is, faulty.Fault{Stall: true, CutAfter: 50_000}))
	f, tr := transfers(t, t.TempDir())
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tr.Pull(ctx, bad.Host+"/a:wrong", PullOptions{}, func(Progress) {}) }()
	testutil.Eventually(t, time.Minute, "the layer is asked for", func() bool { return bad.Count(is) > 0 })
	if err := tr.Pull(t.Context(), l.host+"/b:right", PullOptions{}, func(Progress) {}); err != nil {
		t.Error(err)
	}
	giveUp()
	<-ended
	if got, err := f.Resolve(t.Context(), l.host+"/b:right"); err != nil || !f.layers.Has(got.ChainID) {
		t.Error(err)
	}
}

// What a mirror sends wrong comes from the registry itself, and what trickles
// from it, too.
func TestPullByABadMirror(t *testing.T) {
	testutil.RequireRoot(t)
	reg := registry.Start(t, registry.Options{})
	img := published(t, reg.Host, "a:1", images.Spec{Layers: 3, Files: 4, Size: 100_000})
	mirror := faulty.Start(t, faulty.Options{Registry: reg})
	layer := faulty.Blobs(img.Layers[1].Digest.String())
	config := func(r *faulty.Request) bool {
		return r.Blob() != "" && !faulty.Blobs(img.Layers[0].Digest.String(), img.Layers[1].Digest.String(), img.Layers[2].Digest.String())(r)
	}
	manifests := func(r *faulty.Request) bool { return strings.Contains(r.Path, "/manifests/") }
	for name, bad := range map[string]struct {
		match func(*faulty.Request) bool
		fault faulty.Fault
	}{
		"a wrong layer":          {layer, faulty.Fault{Corrupt: true, CorruptAt: 3000}},
		"a layer that trickles":  {layer, faulty.Fault{Rate: 5000}},
		"a layer that is cut":    {layer, faulty.Fault{Cut: true, CutAfter: 3000}},
		"a wrong config":         {config, faulty.Fault{Corrupt: true, CorruptAt: 30}},
		"a wrong manifest":       {manifests, faulty.Fault{Corrupt: true, CorruptAt: 30}},
		"a page instead of them": {manifests, faulty.Fault{Status: 200, Body: "<html>log in here</html>"}},
	} {
		mirror.Forget()
		mirror.On(faulty.Always(bad.match, bad.fault))
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, reg.Host), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, reg.Host, "hosts.toml"), []byte(`[host."`+mirror.URL+`"]`), 0o600); err != nil {
			t.Fatal(err)
		}
		f, tr := transfersBy(t, t.TempDir(), remote.Config{HostsDir: dir, Patience: 700 * time.Millisecond, LeastRate: 50_000})
		if err := tr.Pull(t.Context(), reg.Host+"/a:1", PullOptions{}, func(Progress) {}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := f.Resolve(t.Context(), reg.Host+"/a:1"); err != nil || got.ID != img.Manifest.Digest || !f.layers.Has(got.ChainID) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if mirror.Count(bad.match) == 0 {
			t.Errorf("%s: the mirror was not asked", name)
		}
	}
}

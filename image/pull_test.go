package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/remote"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// transfers is a store of its own with what moves images to and from it.
func transfers(t testing.TB, root string) (fixture, *Transfers) {
	t.Helper()
	return transfersBy(t, root, remote.Config{})
}

// transfersBy is transfers that reach registries in the given way.
func transfersBy(t testing.TB, root string, config remote.Config) (fixture, *Transfers) {
	t.Helper()
	f := open(t, root)
	config.UserAgent = "tare/test"
	client, err := remote.New(config)
	if err != nil {
		t.Fatal(err)
	}
	tr := NewTransfers(f.Service, client, Limits{Downloads: 3, Uploads: 3})
	t.Cleanup(func() {
		tr.Close(context.Background())
		client.Close()
	})
	return f, tr
}

// steps remembers what a transfer told.
type steps struct {
	mu   sync.Mutex
	list []Progress
}

func (s *steps) add(p Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, p)
}

// states lists the different words said of one ID, in their order.
func (s *steps) states(id string) (list []string) {
	for _, p := range s.list {
		if p.ID == id && (len(list) == 0 || list[len(list)-1] != p.Status) {
			list = append(list, p.Status)
		}
	}
	return list
}

func (s *steps) last() string { return s.list[len(s.list)-1].Status }

// published puts an image into a registry.
func published(t testing.TB, host, name string, spec images.Spec) *images.Image {
	t.Helper()
	img := images.Make(t, spec)
	images.Copy(t, img.Ref(), "docker://"+host+"/"+name, "--dest-tls-verify=false")
	return img
}

func TestPull(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	for _, compression := range []string{"gzip", "zstd", "none"} {
		img := published(t, reg.Host, "a/"+compression+":1", images.Spec{Layers: 4, Files: 20, Size: 4096, Compression: compression, Seed: 7})
		f, tr := transfers(t, t.TempDir())
		ref := reg.Host + "/a/" + compression + ":1"
		var told steps
		if err := tr.Pull(t.Context(), ref, PullOptions{}, told.add); err != nil {
			t.Fatal(compression, err)
		}
		got, err := f.Catalog.Resolve(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != img.Manifest.Digest || !f.layers.Has(got.ChainID) {
			t.Errorf("%s is %+v", compression, got)
		}
		if told.list[0] != (Progress{ID: "1", Status: "Pulling from a/" + compression, Tag: true}) || told.last() != "Status: Downloaded newer image for "+ref {
			t.Errorf("%s: %+v", compression, told.list)
		}
		for _, l := range img.Layers {
			states := told.states(short(l.Digest.Encoded()))
			if states[0] != "Pulling fs layer" || states[len(states)-1] != "Pull complete" || !slices.Contains(states, "Download complete") {
				t.Errorf("layer: %v", states)
			}
		}
		again := steps{}
		if err := tr.Pull(t.Context(), ref, PullOptions{}, again.add); err != nil || again.last() != "Status: Image is up to date for "+ref {
			t.Error(err, again.list)
		}
		if left, _ := os.ReadDir(f.root + "/content/partial"); len(left) != 0 {
			t.Errorf("partial/ holds %v", left)
		}
	}
}

// Of an index one platform is fetched, with what attests it, and another one
// when it is asked for.
func TestPullIndex(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	l, tag := images.Layout(t.TempDir()), "multi"
	manifests := map[string]ocispec.Descriptor{}
	for i, arch := range []string{"amd64", "arm64", "s390x"} {
		img, err := images.Write(string(l), images.Spec{Layers: 2, Seed: uint64(i + 1), Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Tag: arch})
		if err != nil {
			t.Fatal(err)
		}
		d := img.Manifest
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		manifests[arch] = d
	}
	index, err := l.Index(tag, manifests["s390x"], manifests["arm64"], manifests["amd64"])
	if err != nil {
		t.Fatal(err)
	}
	images.Copy(t, "oci:"+string(l)+":"+tag, "docker://"+reg.Host+"/multi:1", "--all", "--preserve-digests", "--dest-tls-verify=false")
	f, tr := transfers(t, t.TempDir())
	ref := reg.Host + "/multi:1"
	pull := func(platform string) error {
		return tr.Pull(t.Context(), ref, PullOptions{Platform: platform}, func(Progress) {})
	}
	available := func() (list []string) {
		r, err := f.Inventory.Inspect(t.Context(), ref, inventory.InspectOptions{Manifests: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range r.Manifests {
			if m.Available {
				list = append(list, m.ImageData.Platform.Architecture)
			}
		}
		return list
	}
	if err := pull(""); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Catalog.Resolve(t.Context(), ref); err != nil || got.ID != index.Digest || got.Manifest.Digest != manifests[platform.Host().Architecture].Digest {
		t.Errorf("%+v, %v", got, err)
	}
	if got := available(); !slices.Equal(got, []string{platform.Host().Architecture}) {
		t.Errorf("%v are here", got)
	}
	if err := pull("linux/s390x"); err != nil || len(available()) != 2 {
		t.Error(err, available())
	}
	if err := pull("linux/riscv64"); !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "no matching manifest for linux/riscv64 in the manifest list entries") {
		t.Error(err)
	}
}

func TestPullErrors(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	published(t, reg.Host, "a:1", images.Spec{})
	f, tr := transfers(t, t.TempDir())
	before := f.shape(t)
	for ref, want := range map[string]string{
		"/a:2": "manifest for " + reg.Host + "/a:2 not found: manifest unknown",
		"/b:1": "not found",
	} {
		err := tr.Pull(t.Context(), reg.Host+ref, PullOptions{}, func(Progress) {})
		if !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := tr.Pull(t.Context(), reg.Host+"/a:1", PullOptions{Platform: "linux/s390x"}, func(Progress) {}); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if after := f.shape(t); !slices.Equal(before, after) {
		t.Errorf("%v is left of what failed", after)
	}
}

func TestPullAllTags(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	for i := range 3 {
		published(t, reg.Host, fmt.Sprintf("a:%d", i), images.Spec{Seed: uint64(i + 1)})
	}
	f, tr := transfers(t, t.TempDir())
	if err := tr.Pull(t.Context(), reg.Host+"/a", PullOptions{All: true}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := f.Catalog.Resolve(t.Context(), fmt.Sprintf("%s/a:%d", reg.Host, i)); err != nil {
			t.Error(err)
		}
	}
}

// Two pulls that want one layer at the same time fetch it once, and one that is
// given up takes nothing from the other.
func TestPullsShareADownload(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	img := published(t, reg.Host, "a:1", images.Spec{Layers: 1, Files: 4, Size: 1 << 20})
	slow := make(chan struct{})
	p := faulty.Start(t, faulty.Options{Registry: reg})
	layer := faulty.Blobs(img.Layers[0].Digest.String())
	p.On(faulty.Always(layer, faulty.Fault{Wait: slow}))
	f, tr := transfers(t, t.TempDir())
	given, giveUp := context.WithCancel(t.Context())
	errs := map[string]chan error{}
	for name, ctx := range map[string]context.Context{"given up": given, "the other": t.Context()} {
		errs[name] = make(chan error, 1)
		waiting := make(chan struct{})
		var once sync.Once
		go func() {
			errs[name] <- tr.Pull(ctx, p.Host+"/a:1", PullOptions{}, func(s Progress) {
				if s.ID == short(img.Layers[0].Digest.Encoded()) && s.Status != "Pulling fs layer" {
					once.Do(func() { close(waiting) })
				}
			})
		}()
		<-waiting
	}
	giveUp()
	if err := <-errs["given up"]; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(slow)
	if err := <-errs["the other"]; err != nil {
		t.Fatal(err)
	}
	if n := p.Count(layer); n != 1 {
		t.Errorf("the layer was asked for %d times", n)
	}
	if got, err := f.Catalog.Resolve(t.Context(), p.Host+"/a:1"); err != nil || !f.layers.Has(got.ChainID) {
		t.Error(err)
	}
}

// A pull that was broken off is gone on with where it stopped, by another
// process too; what is damaged is fetched anew.
func TestPullIsResumed(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	img := published(t, reg.Host, "a:1", images.Spec{Layers: 1, Files: 4, Size: 1 << 20, Compression: "none"})
	layer := img.Layers[0]
	is := faulty.Blobs(layer.Digest.String())
	for _, damaged := range []bool{false, true} {
		p := faulty.Start(t, faulty.Options{Registry: reg})
		root := t.TempDir()
		_, tr := transfers(t, root)
		ctx, stop := context.WithCancel(t.Context())
		p.On(faulty.Always(is, faulty.Fault{Rate: 8 << 20}))
		err := tr.Pull(ctx, p.Host+"/a:1", PullOptions{}, func(s Progress) {
			if s.Current > layer.Size/2 {
				stop()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		tr.Close(t.Context())
		if damaged {
			damage(t, root, layer)
		}
		sent := p.Sent(is)
		p.On(nil)
		f, tr := transfers(t, root)
		if err := tr.Pull(t.Context(), p.Host+"/a:1", PullOptions{}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
		if again := p.Sent(is) - sent; !damaged && again > layer.Size-sent+64<<10 {
			t.Errorf("%d bytes were sent after %d of %d", again, sent, layer.Size)
		}
		if got, err := f.Catalog.Resolve(t.Context(), p.Host+"/a:1"); err != nil || !f.layers.Has(got.ChainID) {
			t.Error(err)
		}
	}
}

// damage changes a byte of what was fetched.
func damage(t *testing.T, root string, d ocispec.Descriptor) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(root, fmt.Sprintf("content/partial/sha256-%s-%d", d.Digest.Encoded(), d.Size)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	f.ReadAt(b, 70_000)
	b[0] ^= 1
	if _, err := f.WriteAt(b, 70_000); err != nil {
		t.Fatal(err)
	}
}

// manyRanges is a size of blobs that are fetched in several ranges at once.
const manyRanges = 64 << 20

// A large layer comes once from a registry that knows no ranges, too.
func TestPullWithoutRanges(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	img := published(t, reg.Host, "a:1", images.Spec{Layers: 1, Files: 1, Size: manyRanges + 8<<20, Compression: "none"})
	if img.Layers[0].Size < manyRanges {
		t.Fatalf("%d bytes are not large", img.Layers[0].Size)
	}
	p := faulty.Start(t, faulty.Options{Registry: reg})
	is := faulty.Blobs(img.Layers[0].Digest.String())
	p.On(faulty.Always(is, faulty.Fault{IgnoreRange: true}))
	f, tr := transfers(t, t.TempDir())
	if err := tr.Pull(t.Context(), p.Host+"/a:1", PullOptions{}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Catalog.Resolve(t.Context(), p.Host+"/a:1"); err != nil || !f.layers.Has(got.ChainID) {
		t.Error(err)
	}
	testutil.Eventually(t, time.Minute, "the proxy has ended", func() bool {
		return !slices.ContainsFunc(p.Requests(is), func(r faulty.Request) bool { return !r.Done })
	})
	if sent := p.Sent(is); sent > img.Layers[0].Size*3/2 {
		t.Errorf("%d bytes were sent of %d", sent, img.Layers[0].Size)
	}
}

// Of a pull that fails at its last layer the others need not be fetched again,
// by another process neither.
func TestPullKeepsWhatCameWhole(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	img := published(t, reg.Host, "a:1", images.Spec{Layers: 3, Files: 2, Size: 1 << 20, Compression: "none"})
	p := faulty.Start(t, faulty.Options{Registry: reg})
	complete := make(chan struct{})
	p.On(faulty.Always(faulty.Blobs(img.Layers[2].Digest.String()), faulty.Fault{Wait: complete, Status: 404}))
	root := t.TempDir()
	f, tr := transfers(t, root)
	count := 0
	err := tr.Pull(t.Context(), p.Host+"/a:1", PullOptions{}, func(s Progress) {
		if s.Status == "Pull complete" {
			if count++; count == 2 {
				close(complete)
			}
		}
	})
	if !errors.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
	if _, here := f.content.Size(img.Layers[0].Digest); here {
		t.Error("content of no image was not collected")
	}
	p.On(nil)
	p.Forget()
	f, tr = transfers(t, root)
	if err := tr.Pull(t.Context(), p.Host+"/a:1", PullOptions{}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	if n := p.Count(faulty.Blobs(img.Layers[0].Digest.String(), img.Layers[1].Digest.String())); n != 0 {
		t.Errorf("%d layers were fetched again", n)
	}
	if left, _ := os.ReadDir(root + "/content/partial"); len(left) != 0 {
		t.Errorf("partial/ holds %v", left)
	}
	if got, err := f.Catalog.Resolve(t.Context(), p.Host+"/a:1"); err != nil || !f.layers.Has(got.ChainID) {
		t.Error(err)
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
	if got, err := f.Catalog.Resolve(t.Context(), reg.Host+"/fast:1"); err != nil || !f.layers.Has(got.ChainID) {
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
	if got, err := f.Catalog.Resolve(t.Context(), l.host+"/b:right"); err != nil || !f.layers.Has(got.ChainID) {
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
		if got, err := f.Catalog.Resolve(t.Context(), reg.Host+"/a:1"); err != nil || got.ID != img.Manifest.Digest || !f.layers.Has(got.ChainID) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if mirror.Count(bad.match) == 0 {
			t.Errorf("%s: the mirror was not asked", name)
		}
	}
}

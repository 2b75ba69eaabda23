package download

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// stalled is where a registry stops: beyond a half of the layer.
const stalled = 5 << 20

// twoRegistries are proxies with one layer, and a store to fetch it into.
type twoRegistries struct {
	*Downloads
	root      string // the store's
	client    *remote.Client
	bad, good *faulty.Proxy
	layer     ocispec.Descriptor
	is        func(*faulty.Request) bool // a request for the layer
}

func newTwoRegistries(t *testing.T, o registry.Options) *twoRegistries {
	t.Helper()
	reg := registry.Start(t, o)
	img := images.Make(t, images.Spec{Layers: 1, Files: 4, Size: 1 << 20, Compression: "none"})
	flags := []string{"--dest-tls-verify=false"}
	for user, password := range o.Htpasswd {
		flags = append(flags[:1], "--dest-creds", user+":"+password)
	}
	images.Copy(t, img.Ref(), "docker://"+reg.Host+"/a:1", flags...)
	two := &twoRegistries{root: t.TempDir(), layer: img.Layers[0], is: faulty.Blobs(img.Layers[0].Digest.String()),
		bad: faulty.Start(t, faulty.Options{Registry: reg}), good: faulty.Start(t, faulty.Options{Registry: reg})}
	if two.layer.Size < stalled || two.layer.Size/2 > stalled {
		t.Fatalf("the layer has %d bytes", two.layer.Size)
	}
	store, err := content.Open(two.root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Hold()) // nobody names the layer
	if two.client, err = remote.New(remote.Config{UserAgent: "tare/test"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { two.client.Close() })
	two.Downloads = New(store)
	two.SetLimit(3)
	t.Cleanup(func() {
		two.Wait()
		if n := len(two.active) + len(two.slots.taken) + len(two.slots.waiting); n > 0 {
			t.Errorf("%d things are still under way", n)
		}
	})
	return two
}

// begin has joined the download of the layer when it returns.
func (two *twoRegistries) begin(ctx context.Context, t *testing.T, p *faulty.Proxy, who remote.Credentials) (ended chan error) {
	t.Helper()
	name, err := reference.ParseBare(p.Host + "/a")
	if err != nil {
		t.Fatal(err)
	}
	share, err := two.Want(ctx, two.layer, two.client.Repository(name, who))
	if err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() {
		defer share.Leave()
		again, err := true, error(nil)
		for again && err == nil {
			again, err = share.Wait(ctx, share.Attempt())
		}
		ended <- err
	}()
	return ended
}

// half waits until all of the layer has come that the bad registry sends.
func (two *twoRegistries) half(t *testing.T) {
	t.Helper()
	testutil.Eventually(t, time.Minute, "the half of the layer that comes has come", func() bool {
		two.mu.Lock()
		dl := two.active[blob{two.layer.Digest, two.layer.Size}]
		two.mu.Unlock()
		return dl != nil && dl.Have() >= stalled-64<<10
	})
}

func (two *twoRegistries) whole(t *testing.T) {
	t.Helper()
	f, _, err := two.content.Open(two.layer.Digest)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	sum := two.layer.Digest.Verifier()
	if _, err := f.WriteTo(sum); err != nil || !sum.Verified() {
		t.Errorf("the layer is not whole: %v", err)
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
		two.window = 200 * time.Millisecond
		two.bad.On(faulty.Always(two.is, f))
		first := two.begin(t.Context(), t, two.bad, remote.Credentials{})
		if name == "stalls" {
			two.half(t)
		}
		second := two.begin(t.Context(), t, two.good, remote.Credentials{})
		for _, ended := range []chan error{first, second} {
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		two.whole(t)
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
		first := two.begin(t.Context(), t, two.bad, remote.Credentials{})
		second := two.begin(t.Context(), t, two.good, remote.Credentials{})
		close(joined)
		for _, ended := range []chan error{first, second} {
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		two.whole(t)
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
	err := <-two.begin(t.Context(), t, two.bad, remote.Credentials{})
	if !errors.Is(err, fault.Invalid) || !strings.HasPrefix(fmt.Sprint(err), two.bad.Host+" sent wrong bytes: content has the digest sha256:") {
		t.Error(err)
	}
	if left, _ := os.ReadDir(two.root + "/partial"); len(left) != 0 {
		t.Errorf("partial/ holds %v", left)
	}
}

// With its last pull a registry goes, and the others do not wait for it.
func TestRegistryGoesWithItsPull(t *testing.T) {
	two := newTwoRegistries(t, registry.Options{})
	two.bad.On(faulty.Always(two.is, faulty.Fault{Stall: true, CutAfter: stalled}))
	ctx, giveUp := context.WithCancel(t.Context())
	first := two.begin(ctx, t, two.bad, remote.Credentials{})
	two.half(t)
	second := two.begin(t.Context(), t, two.good, remote.Credentials{})
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	two.whole(t)
	if n, sent := two.bad.Count(two.is), two.good.Sent(two.is); n != 1 || sent > two.layer.Size-stalled+64<<10 {
		t.Errorf("the one that went was asked %d times, the other sent %d bytes of %d", n, sent, two.layer.Size)
	}
}

// Each registry is asked as the user of its own pull.
func TestCredentialsStayApart(t *testing.T) {
	users := map[string]string{"ann": "secret", "bob": "hush"}
	two := newTwoRegistries(t, registry.Options{Htpasswd: users})
	two.window = 200 * time.Millisecond
	two.bad.On(faulty.Always(two.is, faulty.Fault{Stall: true, CutAfter: stalled}))
	first := two.begin(t.Context(), t, two.bad, remote.Credentials{Username: "ann", Password: "secret"})
	two.half(t)
	second := two.begin(t.Context(), t, two.good, remote.Credentials{Username: "bob", Password: "hush"})
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
	for _, both := range []bool{false, true} {
		two := newTwoRegistries(t, registry.Options{})
		joined := make(chan struct{})
		two.bad.On(faulty.Always(two.is, faulty.Fault{Wait: joined, Status: 404}))
		if both {
			two.good.On(faulty.Always(two.is, faulty.Fault{Status: 403}))
		}
		first := two.begin(t.Context(), t, two.bad, remote.Credentials{})
		second := two.begin(t.Context(), t, two.good, remote.Credentials{})
		close(joined)
		if err := <-first; both != errors.Is(err, fault.NotFound) || !both && err != nil {
			t.Errorf("both: %v; the first says %v", both, err)
		}
		if err := <-second; both != errors.Is(err, fault.Forbidden) || !both && err != nil {
			t.Errorf("both: %v; the second says %v", both, err)
		}
	}
}

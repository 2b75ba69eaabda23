package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// crash is a daemon that is killed while it works on its images, and what its
// clients were told.
type crash struct {
	d       *daemon.Daemon
	tar     string // of a root filesystem
	saved   string // archive of two images, crash/loaded:a and :b
	pulled  []*images.Image
	pullURL string

	mu     sync.Mutex
	expect map[string]bool // name -> whether it was acknowledged that it is there; not in it: unknown
	serial int
	acked  map[string]int // by the first word of the command
}

// killings is how often the daemon is killed. With TARE_SOAK set to a number it
// is that often.
const killings = 20

// TestKilledStore kills the daemon at moments of chance while it loads, imports,
// pulls, tags and removes. The next one has all that was acknowledged, whole,
// and nothing that belongs to no image.
func TestKilledStore(t *testing.T) {
	testutil.RequireRoot(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := newCrash(t)
	rounds := killings
	if n, err := strconv.Atoi(os.Getenv("TARE_SOAK")); err == nil {
		rounds = n
	}
	// Some rounds more until each kind of work was acknowledged at least once.
	for round := 0; round < rounds || c.missing() != "" && round < 10*rounds; round++ {
		// Some die at their start, when they collect what the last one left.
		if round%5 == 4 {
			c.d.Begin(t)
			kill(t, c.d, time.Duration(random.IntN(60))*time.Millisecond)
		}
		c.d.Up(t)
		c.check(t)
		c.work(t, random.Uint64(), time.Duration(5+random.IntN(700))*time.Millisecond)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	c.d.Up(t)
	c.check(t)
	c.removeAll(t)
	c.check(t)
	if verb := c.missing(); verb != "" {
		t.Errorf("no %s was acknowledged before a kill: %v", verb, c.acked)
	}
}

// missing is a kind of work of which nothing has been acknowledged, "" for none.
// No client may be at work.
func (c *crash) missing() string {
	for _, verb := range []string{"import", "load", "pull", "tag", "rmi"} {
		if c.acked[verb] == 0 {
			return verb
		}
	}
	return ""
}

// kill ends the daemon by SIGKILL after the time.
func kill(t *testing.T, d *daemon.Daemon, after time.Duration) {
	t.Helper()
	<-time.After(after)
	d.Signal(t, syscall.SIGKILL)
}

func newCrash(t *testing.T) *crash {
	t.Helper()
	c := &crash{d: daemon.New(t), expect: map[string]bool{}, acked: map[string]int{}}
	r := registry.Start(t, registry.Options{})
	c.pullURL = r.Host + "/crash"
	for i := range 3 {
		img := images.Make(t, images.Spec{Layers: 4, Files: 60, Size: 20_000, Seed: uint64(100 + i), Docker: i == 1})
		images.Copy(t, img.Ref(), fmt.Sprintf("docker://%s/i%d:v1", c.pullURL, i))
		c.pulled = append(c.pulled, img)
	}
	c.d.Up(t)
	c.tar = daemon.Busybox(t)
	for i, tag := range []string{"a", "b"} {
		c.d.Tare(t, "import", "--change", fmt.Sprintf("LABEL n=%d", i), c.tar, "crash/loaded:"+tag)
	}
	c.saved = filepath.Join(c.d.Dir, "saved.tar")
	c.d.Tare(t, "save", "-o", c.saved, "crash/loaded:a", "crash/loaded:b")
	c.d.Tare(t, "rmi", "crash/loaded:a", "crash/loaded:b")
	c.d.Signal(t, syscall.SIGTERM)
	return c
}

// work has three clients do things of chance, and kills the daemon after the time.
func (c *crash) work(t *testing.T, seed uint64, after time.Duration) {
	t.Helper()
	killAmid(t, c.d, 3, seed, after, c.step)
}

// killAmid has so many clients take steps of chance, and kills the daemon after
// the time.
func killAmid(t *testing.T, d *daemon.Daemon, n int, seed uint64, after time.Duration, step func(*rand.Rand)) {
	t.Helper()
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for i := range n {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					step(random)
				}
			}
		})
	}
	kill(t, d, after)
	close(stop)
	clients.Wait()
}

// step does one thing and remembers what was acknowledged.
func (c *crash) step(random *rand.Rand) {
	c.mu.Lock()
	c.serial++
	name := fmt.Sprintf("crash/made:%d", c.serial)
	c.mu.Unlock()
	switch random.IntN(6) {
	case 0:
		c.adds([]string{name}, "import", "--change", "LABEL name="+name, c.tar, name)
	case 1:
		c.adds([]string{"crash/loaded:a", "crash/loaded:b"}, "load", "-q", "-i", c.saved)
	case 2, 3:
		ref := fmt.Sprintf("%s/i%d:v1", c.pullURL, random.IntN(len(c.pulled)))
		c.adds([]string{ref}, "pull", "-q", ref)
	case 4:
		if from := c.pick(random); from != "" {
			c.adds([]string{name}, "tag", from, name)
		}
	case 5:
		if ref := c.pick(random); ref != "" {
			c.try([]string{ref}, false, "rmi", "-f", ref)
		}
	}
}

// pick takes a name that is there, so that nobody else touches it meanwhile.
func (c *crash) pick(random *rand.Rand) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var there []string
	for name, known := range c.expect {
		if known && strings.HasPrefix(name, "crash/made") {
			there = append(there, name)
		}
	}
	if len(there) == 0 {
		return ""
	}
	slices.Sort(there)
	return there[random.IntN(len(there))]
}

func (c *crash) adds(names []string, args ...string) { c.try(names, true, args...) }

// try runs a command that makes the names be there or not. Until it is
// acknowledged nobody knows.
func (c *crash) try(names []string, there bool, args ...string) {
	c.mu.Lock()
	if !there {
		for _, n := range names {
			delete(c.expect, n)
		}
	}
	c.mu.Unlock()
	if _, err := c.d.Try(args...); err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked[args[0]]++
	for _, n := range names {
		c.expect[n] = there
	}
}

// check looks at the store of a daemon that has just started.
func (c *crash) check(t *testing.T) {
	t.Helper()
	listed := strings.Fields(c.d.Tare(t, "images", "--format", "{{.Repository}}:{{.Tag}}"))
	for name, there := range c.expect {
		if slices.Contains(listed, name) != there {
			t.Errorf("%s was acknowledged: there %v; of %v", name, there, listed)
		}
	}
	for _, name := range listed {
		// What is there is whole, whether anybody was told of it or not.
		if strings.HasPrefix(name, "crash/") || strings.HasPrefix(name, c.pullURL) {
			if _, err := c.d.Try("save", "-o", "/dev/null", name); err != nil {
				t.Error(err)
			}
			c.expect[name] = true
		}
	}
	for name := range c.expect { // what was not known is so now
		if !slices.Contains(listed, name) {
			delete(c.expect, name)
		}
	}
	if len(listed) > 0 && slices.Contains(listed, "crash/loaded:a") {
		if out := c.d.Tare(t, "run", "--rm", "--network", "none", "crash/loaded:a", "echo", "runs"); out != "runs" {
			t.Errorf("it says %q", out)
		}
	}
	c.checkFiles(t)
}

// checkFiles compares the files with what the index leads to.
func (c *crash) checkFiles(t *testing.T) {
	t.Helper()
	data := filepath.Join(c.d.Dir, "data")
	for _, dir := range []string{"content/ingest", "snapshot/new", "snapshot/trash"} {
		testutil.Eventually(t, 20*time.Second, dir+" is empty", func() bool {
			left, err := os.ReadDir(filepath.Join(data, dir))
			return err == nil && len(left) == 0 || os.IsNotExist(err)
		})
	}
	blobs, chains := map[string]bool{}, map[string]bool{"base": true}
	reach(t, data+"/content", "index.json", blobs, chains)
	_ = filepath.WalkDir(data+"/content/blobs", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !blobs[d.Name()] {
			t.Errorf("the blob %s belongs to no image", d.Name())
		}
		return err
	})
	layers, err := os.ReadDir(data + "/snapshot/layers")
	if err != nil {
		t.Error(err)
	}
	for _, l := range layers {
		if !chains[l.Name()] {
			t.Errorf("the layer %s belongs to no image", l.Name())
		}
	}
	// Of blobs that have not come whole only those are kept that somebody may ask
	// for again.
	partial, _ := os.ReadDir(data + "/content/partial")
	for _, p := range partial {
		if !slices.ContainsFunc(c.pulled, func(img *images.Image) bool { return wants(t, img, p.Name()) }) {
			t.Errorf("partial/%s is nobody's", p.Name())
		}
	}
}

// wants tells whether a partial file is of one of the image's blobs.
func wants(t *testing.T, img *images.Image, name string) bool {
	t.Helper()
	blobs := []string{configOf(t, img)}
	for _, l := range img.Layers {
		blobs = append(blobs, l.Digest.String())
	}
	name, _, _ = strings.Cut(strings.Replace(name, "-", ":", 1), "-") // the rest is the size
	return slices.Contains(blobs, name)
}

// reach notes the blobs that a document of the layout leads to, which must be
// there, and the chain IDs of their layers.
func reach(t *testing.T, layout, file string, blobs, chains map[string]bool) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(layout, file))
	if err != nil {
		t.Error(err)
		return
	}
	var doc struct {
		Manifests, Layers []ocispec.Descriptor
		Config            *ocispec.Descriptor
		RootFS            struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Errorf("%s: %v", file, err)
		return
	}
	follow := append(slices.Clone(doc.Manifests), doc.Layers...)
	if doc.Config != nil && doc.Config.Digest != "" { // that of a config is of another kind
		follow = append(follow, *doc.Config)
	}
	for _, d := range follow {
		path := filepath.Join("blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
		st, err := os.Stat(filepath.Join(layout, path))
		if err != nil || st.Size() != d.Size {
			t.Errorf("%s names %s with %d bytes: %v, %v", file, d.Digest, d.Size, st, err)
			continue
		}
		if blobs[d.Digest.Encoded()] {
			continue
		}
		blobs[d.Digest.Encoded()] = true
		if strings.HasSuffix(d.MediaType, "json") {
			reach(t, layout, path, blobs, chains)
		}
	}
	chain := digest.Digest("")
	for _, diff := range doc.RootFS.DiffIDs {
		if chain == "" {
			chain = diff
		} else {
			chain = digest.FromString(chain.String() + " " + diff.String())
		}
		chains[chain.Encoded()] = true
	}
}

// removeAll removes the images of the test; nothing is left of them.
func (c *crash) removeAll(t *testing.T) {
	t.Helper()
	for name := range c.expect {
		c.d.Tare(t, "rmi", "-f", name)
	}
	clear(c.expect)
	for _, name := range strings.Fields(c.d.Tare(t, "images", "-q", "--filter", "dangling=true")) {
		c.d.Tare(t, "rmi", "-f", name)
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

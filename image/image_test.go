package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/config"
	"github.com/tarehq/tare/image/hello"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/snapshot"
)

// recorder is a Publisher that remembers.
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) Publish(action, id string, attrs map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, action+" "+attrs["name"])
}

type fixture struct {
	*Service
	root   string
	events *recorder
	layers *snapshot.Store
}

func open(t testing.TB, root string) fixture { return openWith(t, root, snapshot.Overlay) }

func openWith(t testing.TB, root, driver string) fixture {
	t.Helper()
	testutil.RequireRoot(t)
	f, err := tryOpenWith(root, driver)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.layers.Close() })
	return f
}

func tryOpen(root string) (fixture, error) { return tryOpenWith(root, snapshot.Overlay) }

func tryOpenWith(root, driver string) (fixture, error) {
	f := fixture{root: root, events: &recorder{}}
	store, err := content.Open(filepath.Join(root, "content"))
	if err != nil {
		return f, err
	}
	if f.layers, err = snapshot.Open(filepath.Join(root, "snapshot"), driver); err != nil {
		return f, err
	}
	f.Service, err = Open(context.Background(), store, f.layers, f.events)
	if err != nil {
		f.layers.Close()
	}
	return f, err
}

type file struct{ name, data string }

func rootfs(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		hdr := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(f.data)), ModTime: time.Unix(1e9, 0)}
		if err := errors.Join(w.WriteHeader(hdr), func() error { _, err := w.Write([]byte(f.data)); return err }()); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return buf.Bytes()
}

func (f fixture) imported(t testing.TB, name string, files ...file) string {
	t.Helper()
	id, err := f.Import(context.Background(), bytes.NewReader(rootfs(t, files...)), ImportOptions{Reference: name})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// shape lists what is on disk, so that it can be compared before and after.
func (f fixture) shape(t testing.TB) []string {
	t.Helper()
	testutil.Eventually(t, 5*time.Second, "the trash is empty", func() bool {
		left, err := os.ReadDir(f.root + "/snapshot/trash")
		return err == nil && len(left) == 0
	})
	var paths []string
	err := filepath.WalkDir(f.root, func(p string, d os.DirEntry, err error) error {
		// Directories that wait for containers come and go in the background.
		if strings.Contains(p, "/pair.") {
			return filepath.SkipDir
		}
		paths = append(paths, p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func ids(t testing.TB, f fixture, filters map[string]map[string]bool) []string {
	t.Helper()
	list, err := f.Inventory.List(context.Background(), inventory.ListOptions{Filters: filters})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, s := range list {
		names = append(names, strings.Join(s.RepoTags, ","))
	}
	slices.Sort(names)
	return names
}

func TestImportBusybox(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		busybox = []byte("stands for busybox")
	}
	data := rootfs(t, file{"bin/busybox", string(busybox)}, file{"etc/passwd", "root:x:0:0::/:/bin/sh\n"})
	var zipped, zstded bytes.Buffer
	gz := gzip.NewWriter(&zipped)
	gz.Write(data)
	gz.Close()
	zs, _ := zstd.NewWriter(&zstded)
	zs.Write(data)
	zs.Close()
	xz := exec.Command("xz", "-c")
	xz.Stdin = bytes.NewReader(data)
	xzed, err := xz.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, stream := range map[string][]byte{"plain": data, "gzip": zipped.Bytes(), "zstd": zstded.Bytes(), "xz": xzed} {
		id, err := f.Import(ctx, bytes.NewReader(stream), ImportOptions{Reference: "busybox:" + name, Message: "from a test",
			Changes: []string{"CMD [\"/bin/busybox\"]\nENV A=1 B=\"two words\"", "LABEL kind=test"}})
		if err != nil {
			t.Fatal(name, err)
		}
		img, err := f.Catalog.Resolve(ctx, "busybox:"+name)
		if err != nil {
			t.Fatal(err)
		}
		if img.ID.String() != id || img.Name != "docker.io/library/busybox:"+name || img.DiffIDs[0] != digest.FromBytes(data) || !f.layers.Has(img.ChainID) {
			t.Errorf("%s is %+v", name, img)
		}
		if chain, err := f.Catalog.Unpacked(ctx, img); err != nil || chain != img.ChainID {
			t.Error(chain, err)
		}
	}
	m, err := f.layers.Prepare("c", digest.FromBytes(data))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(m.Lower[0] + "/bin/busybox"); !bytes.Equal(got, busybox) {
		t.Error("the program is not what was imported")
	}
	r, err := f.Inventory.Inspect(ctx, "busybox:plain", inventory.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Comment != "from a test" || r.Os != "linux" || r.Config.Labels["kind"] != "test" || len(r.RootFS.Layers) != 1 || r.Size < 2*int64(len(busybox)) ||
		!cmp.Equal(r.Config.Env, []string{"A=1", "B=two words"}) || !cmp.Equal(r.RepoTags, []string{"busybox:plain"}) ||
		!cmp.Equal(r.RepoDigests, []string{"busybox@" + r.ID}) || r.Descriptor.Digest.String() != r.ID || r.Metadata.LastTagTime.IsZero() {
		t.Errorf("inspect: %+v", r)
	}
	if h, err := f.Inventory.History(ctx, "busybox:plain", ""); err != nil || len(h) != 1 || h[0].ID != r.ID || h[0].Size == 0 {
		t.Errorf("history: %+v, %v", h, err)
	}
	if _, err := f.Inventory.History(ctx, "busybox:plain", "linux/s390x"); !errors.Is(err, fault.NotFound) {
		t.Errorf("history of a platform that is not there: %v", err)
	}
}

func TestImportRefusesAndLeavesNothing(t *testing.T) {
	f := open(t, t.TempDir())
	before := f.shape(t)
	good := rootfs(t, file{"a", "1"})
	cases := map[string]struct {
		data []byte
		o    ImportOptions
		want string
	}{
		"climbing":  {rootfs(t, file{"ok", "1"}, file{"../x", "1"}), ImportOptions{}, "is outside of"},
		"no tar":    {[]byte(strings.Repeat("hello ", 200)), ImportOptions{}, "not a valid tar"},
		"empty":     {nil, ImportOptions{}, "is empty"},
		"truncated": {good[:512], ImportOptions{}, "truncated"},
		"name":      {good, ImportOptions{Reference: "Foo"}, "invalid reference format: repository name (library/Foo) must be lowercase"},
		"digest":    {good, ImportOptions{Reference: "a@" + digest.FromString("").String()}, "cannot import digest reference"},
		"algorithm": {good, ImportOptions{Reference: "sha256:a"}, "refusing to create an ambiguous tag using digest algorithm as name"},
		"change":    {good, ImportOptions{Changes: []string{"RUN true"}}, "RUN is not a valid change command"},
		"platform":  {good, ImportOptions{Platform: "a/b/c/d"}, "cannot parse platform specifier"},
		"xz":        {[]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0}, ImportOptions{}, "xz compression is damaged"},
		"gzip":      {[]byte{0x1f, 0x8b, 9, 9, 9, 9}, ImportOptions{}, "gzip"},
	}
	for name, c := range cases {
		_, err := f.Import(context.Background(), bytes.NewReader(c.data), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) == fault.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, f.shape(t)); diff != "" {
		t.Error("the store has changed:\n", diff)
	}
}

func TestHello(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	img, err := f.Catalog.Resolve(ctx, "hello")
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.layers.Prepare("c", img.ChainID)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(m.Lower[0] + img.Config.Config.Cmd[0]).Output()
	if err != nil || string(out) != hello.Greeting {
		t.Errorf("hello says %q, %v", out, err)
	}
	if _, err := f.Remove(ctx, "hello", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, f, nil); len(got) != 0 {
		t.Errorf("removed, and yet listed: %v", got)
	}
	if _, err := f.Remove(ctx, "hello", RemoveOptions{}); !errors.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
	again, err := f.Catalog.Resolve(ctx, "hello:latest")
	if err != nil || again.ID != img.ID || !f.layers.Has(again.ChainID) {
		t.Errorf("made again it is %v instead of %v: %v", again.ID, img.ID, err)
	}
	other, wrong := "arm64", "s390x"
	if img.Platform.Architecture == "arm64" {
		other = "amd64"
	}
	foreign, err := f.Catalog.ResolvePlatform(ctx, "hello", "linux/"+other)
	if err != nil || foreign.Platform.Architecture != other || f.layers.Has(foreign.ChainID) {
		t.Fatalf("%+v, %v", foreign, err)
	}
	if _, err := f.Catalog.Unpacked(ctx, foreign); err != nil || !f.layers.Has(foreign.ChainID) {
		t.Error(err)
	}
	_, err = f.Catalog.ResolvePlatform(ctx, "hello", "linux/"+wrong)
	if err == nil || err.Error() != "image with reference hello:latest was found but does not provide the specified platform (linux/s390x)" || !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// A layer that another request has unpacked and not yet synced is no ground for
// a container.
func TestUnpackedIsDurable(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	img, err := f.Catalog.ResolvePlatform(ctx, "hello", map[bool]string{true: "linux/amd64", false: "linux/arm64"}[runtime.GOARCH == "arm64"])
	if err != nil {
		t.Fatal(err)
	}
	if err := f.unpacker.Unpack(ctx, img.Layers, img.DiffIDs); err != nil {
		t.Fatal(err)
	}
	chain, err := f.Catalog.Unpacked(ctx, img)
	if err != nil {
		t.Fatal(err)
	}
	f.layers.Close()
	if again := open(t, f.root); !again.layers.Has(chain) {
		t.Error("the next daemon threw it away")
	}
}

// What the list shows of an ID is enough to call the image, whatever the digest
// was made with.
func TestResolveOtherAlgorithm(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	f.imported(t, "a", file{"a", "1"})
	img, err := f.Catalog.Resolve(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	data, err := f.content.Read(img.Manifest.Digest, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	d := digest.SHA512.FromBytes(data)
	if _, err := f.content.Ingest(bytes.NewReader(data), d, -1); err != nil {
		t.Fatal(err)
	}
	target := img.Manifest
	target.Digest = d
	if err := f.store([]content.Entry{{Name: "docker.io/library/b:1", Target: target}}); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{d.Encoded()[:12], d.String()[:20], d.String(), "b@" + d.String()} {
		if got, err := f.Catalog.Resolve(ctx, ref); err != nil || got.ID != d {
			t.Errorf("%s: %v, %v", ref, got.ID, err)
		}
	}
	if got, err := f.Catalog.Resolve(ctx, "sha256:"+d.Encoded()[:12]); err == nil {
		t.Error(got.ID)
	}
}

// Power loss takes a layer; the container that needs it knows its manifest.
func TestUnpackManifestOfAnIndex(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	img, err := f.Catalog.Resolve(ctx, "hello")
	if err != nil {
		t.Fatal(err)
	}
	f.layers.Close()
	if err := os.Remove(f.root + "/snapshot/layers/" + img.ChainID.Encoded() + "/synced"); err != nil {
		t.Fatal(err)
	}
	f = open(t, f.root)
	if f.layers.Has(img.ChainID) {
		t.Fatal("the layer is there")
	}
	if chain, err := f.Catalog.UnpackManifest(ctx, img.Manifest); err != nil || chain != img.ChainID || !f.layers.Has(chain) {
		t.Error(chain, err)
	}
}

func TestResolve(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	id := f.imported(t, "me/app:1", file{"a", "1"})
	hex := strings.TrimPrefix(id, "sha256:")
	for _, ref := range []string{"me/app:1", "docker.io/me/app:1", id, hex, hex[:12], "sha256:" + hex[:4], "me/app@" + id, "me/app:1@" + id} {
		if img, err := f.Catalog.Resolve(ctx, ref); err != nil || img.ID.String() != id {
			t.Errorf("%s: %v, %v", ref, img.ID, err)
		}
	}
	none := strings.Repeat("0", 64)
	for ref, want := range map[string]string{
		"nosuch": "No such image: nosuch:latest", "me/app": "No such image: me/app:latest", none: "No such image: sha256:" + none,
		"sha256:" + none: "No such image: sha256:" + none, "other@" + id: "No such image: other@" + id,
		"Foo": "invalid reference format: repository name (library/Foo) must be lowercase", "a b": "invalid reference format",
	} {
		if _, err := f.Catalog.Resolve(ctx, ref); err == nil || err.Error() != want {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestTagAndList(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	f.imported(t, "one", file{"a", "1"})
	f.imported(t, "two:x", file{"a", "2"})
	if err := f.Tag(ctx, "one", "reg.example:5000/one:v1"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sha256:aaa", "docker.io/library/sha256"} {
		if err := f.Tag(ctx, "one", name); fault.KindOf(err) != fault.Invalid || err.Error() != "refusing to create an ambiguous tag using digest algorithm as name" {
			t.Errorf("%s: %v", name, err)
		}
	}
	set := func(key, value string) map[string]map[string]bool {
		return map[string]map[string]bool{key: {value: true}}
	}
	check := func(filters map[string]map[string]bool, want ...string) {
		t.Helper()
		if got := ids(t, f, filters); !slices.Equal(got, want) {
			t.Errorf("%v: %q instead of %q", filters, got, want)
		}
	}
	check(nil, "hello:latest", "one:latest,reg.example:5000/one:v1", "two:x")
	check(set("reference", "one"), "one:latest")
	check(set("reference", "*/one:v*"), "reg.example:5000/one:v1")
	check(set("dangling", "true"))
	f.imported(t, "two:x", file{"a", "3"})
	check(set("dangling", "true"), "")
	check(set("before", "one"), "hello:latest")
	check(set("since", "hello"), "", "one:latest,reg.example:5000/one:v1", "two:x")
	check(set("until", "2026-11-02T00:00:00Z"), "hello:latest")
	check(set("label", "none"))
	if _, err := f.Inventory.List(ctx, inventory.ListOptions{Filters: set("color", "red")}); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	for source, target := range map[string]string{"nosuch": "x", "one": "Bad"} {
		if err := f.Tag(ctx, source, target); err == nil {
			t.Error("tagged", source, target)
		}
	}
	want := []string{"tag one:latest", "import", "tag two:x", "import", "tag reg.example:5000/one:v1", "tag two:x", "import"}
	for i, e := range f.events.events {
		if !strings.HasPrefix(e, want[i]) {
			t.Errorf("events %q", f.events.events)
		}
	}
	// All of it is there after a restart.
	g := open(t, f.root)
	if diff := cmp.Diff(ids(t, f, nil), ids(t, g, nil)); diff != "" {
		t.Error(diff)
	}
}

func TestRemove(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	before := f.shape(t)
	id := f.imported(t, "a", file{"a", "1"})
	short := strings.TrimPrefix(id, "sha256:")[:12]
	if err := f.Tag(ctx, "a", "b:1"); err != nil {
		t.Fatal(err)
	}
	uses := []catalog.Use{}
	f.Catalog.SetInUse(func() map[digest.Digest][]catalog.Use {
		return map[digest.Digest][]catalog.Use{digest.Digest(id): uses}
	})
	refuse := func(ref string, force bool, want string) {
		t.Helper()
		_, err := f.Remove(ctx, ref, RemoveOptions{Force: force})
		if err == nil || err.Error() != want || !errors.Is(err, fault.Conflict) {
			t.Errorf("%v", err)
		}
	}
	remove := func(ref string, force bool, want ...string) {
		t.Helper()
		answer, err := f.Remove(ctx, ref, RemoveOptions{Force: force})
		var got []string
		for _, a := range answer {
			got = append(got, "-"+a.Untagged+"+"+a.Deleted)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	container := strings.Repeat("c", 64)
	refuse(id, false, "conflict: unable to delete "+short+" (must be forced) - image is referenced in multiple repositories")
	uses = []catalog.Use{{Container: container}}
	if list, err := f.Inventory.List(ctx, inventory.ListOptions{}); err != nil || len(list) == 0 || list[0].ID != id || list[0].Containers != 1 {
		t.Errorf("in use by one container: %+v, %v", list, err)
	}
	remove("b:1", false, "-b:1+")
	refuse(short, false, "conflict: unable to delete "+short+" (must be forced) - image is being used by stopped container cccccccccccc")
	refuse("a", false, "conflict: unable to delete a:latest (must be forced) - container cccccccccccc is using its referenced image "+short)
	uses[0].Running = true
	refuse(id, true, "conflict: unable to delete "+short+" (cannot be forced) - image is being used by running container cccccccccccc")
	remove("a", true, "-a:latest+")
	if got := ids(t, f, map[string]map[string]bool{"dangling": {"true": true}}); len(got) != 1 {
		t.Error("the image of a container is gone")
	}
	img, err := f.Catalog.Resolve(ctx, short)
	if err != nil {
		t.Fatal(err)
	}
	f.layers.Prepare("running", img.ChainID)
	uses[0].Running = false
	remove(short, true, "-+"+id)
	if !f.layers.Has(img.ChainID) {
		t.Error("the layer of a container is gone")
	}
	f.layers.Remove("running")
	open(t, f.root) // collects
	if diff := cmp.Diff(before, f.shape(t)); diff != "" {
		t.Error("the store is not as before:\n", diff)
	}
	if _, err := f.Remove(ctx, "nosuch", RemoveOptions{Force: true}); err == nil || err.Error() != "No such image: nosuch:latest" {
		t.Error(err)
	}
}

func TestSharedSize(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	f.imported(t, "a", file{"a", strings.Repeat("x", 9000)})
	again, err := f.Import(ctx, bytes.NewReader(rootfs(t, file{"a", strings.Repeat("x", 9000)})), ImportOptions{Reference: "b", Message: "another"})
	if err != nil {
		t.Fatal(err)
	}
	f.imported(t, "c", file{"c", "1"})
	list, err := f.Inventory.List(ctx, inventory.ListOptions{SharedSize: true})
	if err != nil {
		t.Fatal(err)
	}
	img, _ := f.Catalog.Resolve(ctx, again)
	for _, s := range list {
		want := map[string]int64{"a:latest": f.layers.Size(img.ChainID), "b:latest": f.layers.Size(img.ChainID)}[s.RepoTags[0]]
		if s.SharedSize != want {
			t.Errorf("%s shares %d bytes instead of %d", s.RepoTags, s.SharedSize, want)
		}
	}
}

// A digest calls all names of its repository.
func TestRemoveByDigest(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	id := f.imported(t, "a:1", file{"a", "1"})
	for _, name := range []string{"a:2", "b"} {
		if err := f.Tag(ctx, "a:1", name); err != nil {
			t.Fatal(err)
		}
	}
	used := false
	f.Catalog.SetInUse(func() map[digest.Digest][]catalog.Use {
		if used {
			return map[digest.Digest][]catalog.Use{digest.Digest(id): {{Container: strings.Repeat("c", 64)}}}
		}
		return nil
	})
	answer, err := f.Remove(ctx, "a@"+id, RemoveOptions{})
	if err != nil || len(answer) != 2 || answer[0].Untagged != "a:1" || answer[1].Untagged != "a:2" {
		t.Errorf("%+v, %v", answer, err)
	}
	used = true
	if _, err := f.Remove(ctx, "b@"+id, RemoveOptions{}); err == nil || !strings.Contains(err.Error(), "image is being used by stopped container") {
		t.Error(err)
	}
	answer, err = f.Remove(ctx, "b@"+id, RemoveOptions{Force: true})
	if err != nil || len(answer) != 2 || answer[1].Deleted != id {
		t.Errorf("%+v, %v", answer, err)
	}
}

func TestConcurrentImportAndRemove(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	data := rootfs(t, file{"a", "shared by all"})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			name := string(rune('a' + i))
			for range 5 {
				if _, err := f.Import(ctx, bytes.NewReader(data), ImportOptions{Reference: name}); err != nil {
					t.Error(err)
					return
				}
				img, err := f.Catalog.Resolve(ctx, name)
				if err != nil || !f.layers.Has(img.ChainID) {
					t.Errorf("after its import %s has no layer: %v", name, err)
				}
				if err := f.Save(ctx, &bytes.Buffer{}, []string{name}, SaveOptions{}); err != nil {
					t.Error(err)
				}
				if _, err := f.Remove(ctx, name, RemoveOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := ids(t, f, nil); !slices.Equal(got, []string{"hello:latest"}) {
		t.Error(got)
	}
}

func TestDamagedImageIsListedAndRemoved(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	id := f.imported(t, "bad", file{"a", "1"})
	path := f.root + "/content/blobs/sha256/" + strings.TrimPrefix(id, "sha256:")
	os.Remove(path)
	os.WriteFile(path, []byte("{"), 0o444)
	g := open(t, f.root)
	if got := ids(t, g, nil); !slices.Contains(got, "bad:latest") {
		t.Error(got)
	}
	if _, err := g.Catalog.Resolve(ctx, "bad"); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	if _, err := g.Remove(ctx, "bad", RemoveOptions{}); err != nil {
		t.Error(err)
	}
}

func TestManifestsOfAnIndex(t *testing.T) {
	f := open(t, t.TempDir())
	list, err := f.Inventory.List(context.Background(), inventory.ListOptions{Manifests: true})
	if err != nil || len(list) != 1 || len(list[0].Manifests) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, m := range list[0].Manifests {
		if !m.Available || m.ImageData.Platform.OS != "linux" || m.Size.Content == 0 {
			t.Errorf("%+v", m)
		}
	}
	data, err := json.Marshal(list[0])
	if err != nil || !bytes.Contains(data, []byte(ocispec.MediaTypeImageIndex)) {
		t.Error(string(data), err)
	}
}

// The brief list says what the whole one does, and both what is so now.
func TestBrief(t *testing.T) {
	ctx := context.Background()
	f := open(t, t.TempDir())
	f.multi(t)
	one := f.imported(t, "one:1", file{"a", "1"})
	multi, _ := f.here(t, "multi:1")
	var uses map[digest.Digest][]catalog.Use
	f.Catalog.SetInUse(func() map[digest.Digest][]catalog.Use { return uses })
	last := ""
	differs := func(what string, err error) {
		t.Helper()
		whole, listErr := f.Inventory.List(ctx, inventory.ListOptions{Manifests: true})
		got, briefErr := f.Inventory.Brief(ctx, inventory.ListOptions{})
		if err := errors.Join(err, listErr, briefErr); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		want := []inventory.Brief{}
		for _, sum := range whole {
			b := inventory.Brief{ID: sum.ID, Containers: sum.Containers, Created: sum.Created, RepoTags: sum.RepoTags, RepoDigests: []string{}, SharedSize: -1, Size: sum.Size}
			for _, m := range sum.Manifests {
				if m.ImageData != nil {
					b.ContentSize += m.Size.Content
				}
			}
			for _, d := range sum.RepoDigests {
				if strings.HasPrefix(d, "by/digest@") {
					b.RepoDigests = append(b.RepoDigests, d)
				}
			}
			want = append(want, b)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		text := fmt.Sprint(got)
		if text == last {
			t.Errorf("%s shows no difference: %s", what, text)
		}
		last = text
	}
	remove := func(ref string, o RemoveOptions) error {
		_, err := f.Remove(ctx, ref, o)
		return err
	}
	differs("the beginning", nil)
	differs("a name", f.Tag(ctx, "multi:1", "localhost:5000/multi:2"))
	differs("a name by digest", f.store([]content.Entry{{Name: "docker.io/by/digest@" + one, Target: f.content.Index().Of(digest.Digest(one))[0].Target}}))
	uses = map[digest.Digest][]catalog.Use{digest.Digest(multi): {{Container: "c1"}, {Container: "c2"}}}
	differs("two containers", nil)
	uses = nil
	differs("no container", nil)
	differs("the removal of a platform", remove("multi:1", RemoveOptions{Platforms: []string{"linux/s390x"}}))
	differs("the removal of a name", remove("localhost:5000/multi:2", RemoveOptions{}))
	f.imported(t, "one:1", file{"a", "2"})
	differs("a name that went elsewhere", nil)
	differs("the removal of an image", remove("multi:1", RemoveOptions{}))
	f.imported(t, "", file{"a", "3"})
	differs("an image without a name", nil)
	_, _, err := f.Prune(ctx, nil)
	differs("a prune", err)
}

func BenchmarkListThousand(b *testing.B) {
	f := open(b, b.TempDir())
	layer, err := f.importLayer(context.Background(), bytes.NewReader(rootfs(b, file{"a", "1"})))
	if err != nil {
		b.Fatal(err)
	}
	var entries []content.Entry
	for i := range 1000 {
		said, _ := importConfig(ImportOptions{Message: fmt.Sprint(i)})
		said.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}
		target, err := config.Put(f.content, said, []ocispec.Descriptor{layer})
		if err != nil {
			b.Fatal(err)
		}
		entries = append(entries, content.Entry{Name: fmt.Sprintf("docker.io/library/i%d:latest", i), Target: target})
	}
	if err := f.store(entries); err != nil {
		b.Fatal(err)
	}
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			if list, err := f.Inventory.List(context.Background(), inventory.ListOptions{}); err != nil || len(list) != 1001 {
				b.Fatal(len(list), err)
			}
		}
	})
	b.Run("brief", func(b *testing.B) {
		for b.Loop() {
			if list, err := f.Inventory.Brief(context.Background(), inventory.ListOptions{}); err != nil || len(list) != 1001 {
				b.Fatal(len(list), err)
			}
		}
	})
}

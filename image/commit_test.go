package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/config"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/test/images"
)

func TestMain(m *testing.M) {
	code := m.Run()
	images.Clean()
	os.Exit(code)
}

// container makes a writable root of an image and gives a path into it.
func (f fixture) container(t testing.TB, id, ref string) (catalog.Image, string) {
	t.Helper()
	img, err := f.Catalog.Resolve(context.Background(), ref)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := f.Catalog.Unpacked(context.Background(), img)
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.layers.Prepare(id, chain)
	if err != nil {
		t.Fatal(err)
	}
	if m.Dir != "" {
		return img, m.Dir
	}
	fd, err := overlayfs.Mount(overlayfs.Overlay{Lower: m.Lower, Upper: m.Upper, Work: m.Work}, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return img, "/proc/self/fd/" + strconv.Itoa(fd)
}

// change writes, changes and removes some files of a container's root.
func change(t testing.TB, root string) {
	t.Helper()
	err := errors.Join(os.WriteFile(root+"/etc/new", []byte("new"), 0o640), os.Remove(root+"/bin/old"), os.Chown(root+"/etc/passwd", 5, 5),
		os.MkdirAll(root+"/srv/deep", 0o755), os.Symlink("deep", root+"/srv/link"))
	if err != nil {
		t.Fatal(err)
	}
}

func (f fixture) committed(t testing.TB, id string, o CommitOptions) catalog.Image {
	t.Helper()
	c, err := f.layers.Changes(id)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	image, err := f.Commit(context.Background(), c.Diff, o)
	if err != nil {
		t.Fatal(err)
	}
	img, err := f.Catalog.Resolve(context.Background(), image)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (f fixture) base(t testing.TB) {
	t.Helper()
	f.imported(t, "base:1", file{"etc/passwd", "root"}, file{"bin/old", "old"}, file{"bin/sh", "sh"})
}

// TestCommittedParents has the history of a commit of a commit name the images
// that the containers were made from, as long as they are there.
func TestCommittedParents(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	f.base(t)
	base, root := f.container(t, "c1", "base:1")
	change(t, root)
	one := f.committed(t, "c1", CommitOptions{Parent: base.Manifest, Image: base.ID, Reference: "one"})
	if want := []string{"create " + one.ID.String(), "tag one:latest"}; !slices.Equal(f.events.events[len(f.events.events)-2:], want) {
		t.Errorf("the events end with %v, not %v", f.events.events, want)
	}
	two := f.committed(t, "c1", CommitOptions{Parent: one.Manifest, Image: one.ID, Reference: "two"})
	if err := f.Tag(t.Context(), "two", "three"); err != nil { // what it was made from is the image's, not the name's
		t.Fatal(err)
	}
	if _, err := f.Remove(t.Context(), "two", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	f = open(t, dir)
	history := func(want ...string) {
		t.Helper()
		var got []string
		list, err := f.Inventory.History(t.Context(), "three", "")
		for _, h := range list {
			got = append(got, strings.Join(append([]string{h.ID}, h.Tags...), " "))
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	history(two.ID.String()+" three:latest", one.ID.String()+" one:latest", base.ID.String()+" base:1")
	if p := f.Inventory.Parent(two.ID.String()); p != one.ID.String() {
		t.Errorf("the parent is %q", p)
	}
	list, err := f.Inventory.List(t.Context(), inventory.ListOptions{})
	if err != nil || !slices.ContainsFunc(list, func(s wire.Summary) bool { return s.ID == two.ID.String() && s.ParentID == one.ID.String() }) {
		t.Errorf("%+v, %v", list, err)
	}
	removed := func(ref string, o RemoveOptions, want ...wire.DeleteResponse) {
		t.Helper()
		if got, err := f.Remove(t.Context(), ref, o); err != nil || !slices.Equal(got, want) {
			t.Errorf("remove %s: %v, %v; want %v", ref, got, err, want)
		}
	}
	listed := func(o inventory.ListOptions, want int) {
		t.Helper()
		list, err := f.Inventory.List(t.Context(), o)
		brief, errBrief := f.Inventory.Brief(t.Context(), o)
		if err != nil || errBrief != nil || len(list) != want || len(brief) != want {
			t.Errorf("%+v: %+v, %v; %+v, %v", o, list, err, brief, errBrief)
		}
	}
	// Without a name it is there for the history, and for nothing else.
	removed("one", RemoveOptions{}, wire.DeleteResponse{Untagged: "one:latest"})
	history(two.ID.String()+" three:latest", one.ID.String(), base.ID.String()+" base:1")
	listed(inventory.ListOptions{}, 3) // with the built-in one
	listed(inventory.ListOptions{All: true}, 4)
	dangling := map[string]map[string]bool{"dangling": {"true": true}}
	listed(inventory.ListOptions{All: true, Filters: dangling}, 0)
	if gone, _, err := f.Prune(t.Context(), nil); err != nil || len(gone) != 0 {
		t.Errorf("prune: %v, %v", gone, err)
	}
	for _, force := range []bool{false, true} {
		_, err := f.Remove(t.Context(), one.ID.String(), RemoveOptions{Force: force})
		if !errors.Is(err, fault.Conflict) || err.Error() != "conflict: unable to delete "+one.ID.Encoded()[:12]+" (cannot be forced) - image has dependent child images" {
			t.Error(err)
		}
	}
	// The last that was made of it takes it along, but for what has a name.
	removed("three", RemoveOptions{NoPrune: true}, wire.DeleteResponse{Untagged: "three:latest"}, wire.DeleteResponse{Deleted: two.ID.String()})
	listed(inventory.ListOptions{Filters: dangling}, 1)
	three := f.committed(t, "c1", CommitOptions{Parent: one.Manifest, Image: one.ID, Reference: "three"})
	removed("three", RemoveOptions{}, wire.DeleteResponse{Untagged: "three:latest"}, wire.DeleteResponse{Deleted: three.ID.String()}, wire.DeleteResponse{Deleted: one.ID.String()})
	listed(inventory.ListOptions{All: true}, 2)
	listed(inventory.ListOptions{All: true, Filters: dangling}, 0)
}

func TestCommit(t *testing.T) {
	f := open(t, t.TempDir())
	f.base(t)
	parent, root := f.container(t, "c", "base:1")
	change(t, root)
	o := CommitOptions{
		Parent: parent.Manifest, Reference: "child", Author: "me", Comment: "why", Changes: []string{"ENV A=2 B=3", `ENTRYPOINT ["/bin/sh"]`},
		Container: dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"sh", "-c"}, Env: []string{"A=1", "C=1"}, User: "u"}},
	}
	img := f.committed(t, "c", o)
	m, err := f.content.Node(img.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := f.content.Node(parent.Manifest)
	if len(m.Manifest.Layers) != 2 || !cmp.Equal(m.Manifest.Layers[0], p.Manifest.Layers[0]) || m.Manifest.Layers[1].MediaType != ocispec.MediaTypeImageLayer ||
		m.Manifest.Layers[1].Digest != img.DiffIDs[1] || img.DiffIDs[0] != parent.DiffIDs[0] || !f.layers.Has(img.ChainID) {
		t.Errorf("the manifest is %+v, the DiffIDs %v", m.Manifest, img.DiffIDs)
	}
	c := img.Config
	if !cmp.Equal(c.Config.Env, []string{"A=2", "C=1", "B=3"}) || c.Config.Cmd != nil || c.Config.Entrypoint[0] != "/bin/sh" || c.Config.User != "u" || c.Author != "me" {
		t.Errorf("the config is %+v", c)
	}
	if h := c.History; len(h) != 2 || h[1].CreatedBy != "sh -c" || h[1].Author != "me" || h[1].Comment != "why" || h[1].EmptyLayer || !h[1].Created.Equal(*c.Created) {
		t.Errorf("the history is %+v", h)
	}
	if o.Container.Env[0] != "A=1" {
		t.Error("the container's own config was changed")
	}
	if !slices.Contains(f.events.events, "tag child:latest") {
		t.Errorf("the events are %v", f.events.events)
	}
	if _, committed := f.container(t, "c2", "child"); !same(t, root, committed) {
		t.Error("a container of the committed image is not like the one that it was made from")
	}
}

// same compares two container roots.
func same(t testing.TB, a, b string) bool {
	t.Helper()
	return bytes.Equal(tarOf(t, a), tarOf(t, b))
}

// tarOf is an archive of a tree with the times of all directories alike, as
// a container that runs changes those of the mount points.
func tarOf(t testing.TB, dir string) []byte {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var buf bytes.Buffer
	if err := archive.Write(context.Background(), &buf, archive.Tree{root}, archive.WriteOptions{Latest: time.Unix(1e9+1, 0)}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestCommitIsReproducible(t *testing.T) {
	f := open(t, t.TempDir())
	f.base(t)
	epoch := time.Unix(1_500_000_000, 0)
	var first catalog.Image
	for i, id := range []string{"c1", "c2"} {
		parent, root := f.container(t, id, "base:1")
		change(t, root)
		when := epoch.Add(time.Duration(i+1) * time.Hour)
		if err := os.Chtimes(root+"/etc/new", when, when); err != nil {
			t.Fatal(err)
		}
		img := f.committed(t, id, CommitOptions{Parent: parent.Manifest, Epoch: epoch})
		again := f.committed(t, id, CommitOptions{Parent: parent.Manifest, Epoch: epoch})
		if i == 0 {
			first = img
		}
		if img.ID != first.ID || again.ID != first.ID || !img.Config.Created.Equal(epoch) || !img.Config.History[1].Created.Equal(epoch) {
			t.Errorf("%s: %s, %s instead of %s, created %v", id, img.ID, again.ID, first.ID, img.Config.Created)
		}
		one := f.committed(t, id, CommitOptions{Parent: parent.Manifest})
		two := f.committed(t, id, CommitOptions{Parent: parent.Manifest})
		if one.ChainID != two.ChainID {
			t.Errorf("%s: the same tree makes two layers", id)
		}
	}
}

// Whatever way a tree is stored, the layer of its changes is the same.
func TestCommitOfEachDriver(t *testing.T) {
	layers := map[string]digest.Digest{}
	for _, driver := range []string{snapshot.Overlay, snapshot.VFS} {
		f := openWith(t, t.TempDir(), driver)
		f.base(t)
		parent, root := f.container(t, "c", "base:1")
		if c, err := f.layers.Changes("c"); err != nil {
			t.Fatal(err)
		} else if n, err := c.WriteLayer(context.Background(), io.Discard, archive.WriteOptions{}); n > 0 || err != nil {
			t.Errorf("%s: %d changes without any, %v", driver, n, err)
		}
		change(t, root)
		img := f.committed(t, "c", CommitOptions{Parent: parent.Manifest, Epoch: time.Unix(1e9+1, 0)})
		layers[driver] = img.DiffIDs[1]
		if _, again := f.container(t, "c2", img.ID.String()); !same(t, root, again) {
			t.Errorf("%s: the committed image makes another tree", driver)
		}
	}
	if layers[snapshot.Overlay] != layers[snapshot.VFS] {
		t.Errorf("the layers are %v", layers)
	}
}

func TestCommitWithoutChanges(t *testing.T) {
	f := open(t, t.TempDir())
	f.base(t)
	parent, _ := f.container(t, "c", "base:1")
	img := f.committed(t, "c", CommitOptions{Parent: parent.Manifest})
	if img.ChainID != parent.ChainID || len(img.Config.History) != 2 || !img.Config.History[1].EmptyLayer {
		t.Errorf("%+v", img)
	}
}

func TestCommitSquash(t *testing.T) {
	f := open(t, t.TempDir())
	f.base(t)
	parent, root := f.container(t, "c", "base:1")
	change(t, root)
	img := f.committed(t, "c", CommitOptions{Parent: parent.Manifest, Squash: true})
	if h := img.Config.History; len(img.DiffIDs) != 1 || len(h) != 2 || !h[0].EmptyLayer || h[1].EmptyLayer {
		t.Errorf("%v, %+v", img.DiffIDs, h)
	}
	if _, again := f.container(t, "c2", img.ID.String()); !same(t, root, again) {
		t.Error("the squashed image makes another tree")
	}
	layer, _, err := f.content.Open(img.DiffIDs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer layer.Close()
	data, _ := io.ReadAll(layer)
	for _, name := range []string{".dockerenv", "etc/hosts", "dev/pts", "bin/old"} {
		if bytes.Contains(data, []byte(name)) {
			t.Errorf("the layer holds %s", name)
		}
	}
}

func TestCommitOfADockerImage(t *testing.T) {
	f := open(t, t.TempDir())
	f.loaded(t, legacy(t, nil))
	parent, root := f.container(t, "c", "old:1")
	if err := os.WriteFile(root+"/b", []byte("b"), 0o644); err != nil {
		t.Fatal(err)
	}
	img := f.committed(t, "c", CommitOptions{Parent: parent.Manifest})
	m, err := f.content.Node(img.Manifest)
	if err != nil || img.Manifest.MediaType != content.DockerManifest || m.Manifest.MediaType != content.DockerManifest || m.Manifest.Config.MediaType != content.DockerConfig ||
		len(m.Manifest.Layers) != 3 || m.Manifest.Layers[2].MediaType != content.DockerLayer {
		t.Errorf("%+v, %v", m.Manifest, err)
	}
}

// A commit makes no image that nobody could use.
func TestCommitOfTooManyLayers(t *testing.T) {
	f := open(t, t.TempDir())
	f.imported(t, "a", file{"a", "data"})
	img, err := f.Catalog.Resolve(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	d, err := f.Catalog.Detail(img.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	said, layers := d.Config, d.Manifest.Layers
	for len(layers) < catalog.MaxLayers {
		layers = append(layers, layers[0])
		said.RootFS.DiffIDs = append(said.RootFS.DiffIDs, said.RootFS.DiffIDs[0])
	}
	parent, err := config.Put(f.content, said, layers)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Commit(t.Context(), archive.Diff{}, CommitOptions{Parent: parent})
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "--squash") {
		t.Error(err)
	}
}

func TestCommitLeavesNothing(t *testing.T) {
	f := open(t, t.TempDir())
	f.base(t)
	parent, root := f.container(t, "c", "base:1")
	change(t, root)
	before := f.shape(t)
	for name, o := range map[string]CommitOptions{
		"removed":   {Check: func() error { return fault.New(fault.Conflict, "gone") }},
		"reference": {Reference: "UPPER"},
		"digest":    {Reference: "a@" + parent.ID.String()},
		"changes":   {Changes: []string{"FROM x"}},
		"name":      {Reference: "x"},
	} {
		if name == "name" {
			if err := os.WriteFile(root+"/.wh.x", nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		o.Parent = parent.Manifest
		c, err := f.layers.Changes("c")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Commit(context.Background(), c.Diff, o); err == nil || fault.KindOf(err) == fault.Internal || strings.HasPrefix(err.Error(), "cannot read") {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
		os.Remove(root + "/.wh.x")
	}
	after := f.shape(t)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("something is left:\n%s", diff)
	}
}

// What skopeo copies and umoci unpacks of a committed image is the same tree.
func TestUmociUnpacksWhatIsCommitted(t *testing.T) {
	for _, program := range []string{"skopeo", "umoci"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	f := open(t, t.TempDir())
	f.base(t)
	parent, root := f.container(t, "c", "base:1")
	change(t, root)
	if err := errors.Join(unix.Mknod(root+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), os.Link(root+"/etc/new", root+"/etc/also"),
		unix.Lsetxattr(root+"/etc/new", "user.mark", []byte("1"), 0), os.RemoveAll(root+"/bin"), os.Mkdir(root+"/bin", 0o700), os.WriteFile(root+"/bin/only", nil, 0o755),
		os.WriteFile(root+"/"+strings.Repeat("long", 50), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	f.committed(t, "c", CommitOptions{Parent: parent.Manifest, Reference: "child:1"})
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	if err := os.WriteFile(dir+"/saved.tar", f.saved(t, "child:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("skopeo", "copy", "oci-archive:"+dir+"/saved.tar:1", "oci:"+dir+"/layout:1")
	run("umoci", "unpack", "--image", dir+"/layout:1", dir+"/bundle")
	// umoci makes nothing to mount on.
	for _, name := range snapshot.MountPoints() {
		os.Remove(filepath.Join(root, name))
	}
	os.Remove(root + "/dev")
	os.Remove(root + "/etc/mtab")
	if got, want := tarOf(t, dir+"/bundle/rootfs"), tarOf(t, root); !bytes.Equal(got, want) {
		t.Errorf("umoci unpacks another tree:\n%s", cmp.Diff(listed(want), listed(got)))
	}
}

// listed gives the headers of a tar.
func listed(data []byte) (list []tar.Header) {
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err != nil {
			return list
		}
		list = append(list, *h)
	}
}

// A whole distribution, changed, committed and saved, is unpacked by others as
// it is here.
func TestUmociUnpacksDebian(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a distribution's tree")
	}
	for _, program := range []string{"skopeo", "umoci", "mmdebstrap"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	f := open(t, t.TempDir())
	tree, err := os.Open(images.Debian(t))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if _, err := f.Import(context.Background(), tree, ImportOptions{Reference: "debian:1"}); err != nil {
		t.Fatal(err)
	}
	parent, root := f.container(t, "c", "debian:1")
	if parent.Platform.Architecture != platform.Host().Architecture {
		t.Errorf("Debian is of %s", platform.Format(parent.Platform))
	}
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	if err := errors.Join(os.RemoveAll(root+"/usr/share/doc"), os.Mkdir(root+"/usr/share/doc", 0o755), os.RemoveAll(root+"/usr/share/man"),
		os.Chmod(root+"/usr/bin/perl", 0o700), os.Link(root+"/usr/bin/tar", root+"/usr/bin/tar2"), os.RemoveAll(root+"/var/cache"),
		os.Symlink("lib", root+"/var/cache"), os.WriteFile(root+"/etc/apt/sources.list", []byte("none\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(root+"/usr/bin/tar2", "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0); err != nil {
		t.Fatal(err)
	}
	f.committed(t, "c", CommitOptions{Parent: parent.Manifest, Reference: "child:1"})
	if err := os.WriteFile(dir+"/saved.tar", f.savedWith(t, "child:1", SaveOptions{Recompress: &Recompressing{Compression: compression.Gzip}}), 0o600); err != nil {
		t.Fatal(err)
	}
	run("skopeo", "copy", "oci-archive:"+dir+"/saved.tar:1", "oci:"+dir+"/layout:1")
	run("umoci", "unpack", "--image", dir+"/layout:1", dir+"/bundle")
	_, ours := f.container(t, "c2", "child:1")
	if !same(t, root, ours) {
		t.Error("the committed image is not like the container")
	}
	os.Remove(ours + "/.dockerenv") // umoci makes nothing to mount on
	for _, name := range []string{"dev/console", "dev/pts", "dev/shm", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"} {
		if _, err := os.Lstat(dir + "/bundle/rootfs/" + name); err != nil {
			os.Remove(ours + "/" + name)
		}
	}
	if got, want := tarOf(t, dir+"/bundle/rootfs"), tarOf(t, ours); !bytes.Equal(got, want) {
		t.Errorf("umoci unpacks another tree:\n%s", cmp.Diff(listed(want), listed(got)))
	}
}

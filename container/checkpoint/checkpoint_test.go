package checkpoint

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

var chain = digest.FromString("chain")

// into has the changes extracted in a directory.
func into(dir string) func(context.Context, io.Reader) error {
	return func(ctx context.Context, r io.Reader) error {
		root, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer root.Close()
		_, err = archive.Extract(ctx, root, r, archive.Options{Whiteouts: archive.OverlayWhiteouts})
		return err
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// entries makes a tar of names and what they hold.
func entries(t *testing.T, list ...string) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := 0; i < len(list); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: list[i], Mode: 0o600, Size: int64(len(list[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(list[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

// A checkpoint that was written to an archive is the same where it is read.
func TestArchive(t *testing.T) {
	testutil.RequireRoot(t) // the layer has owners
	dir := filepath.Join(t.TempDir(), "c1")
	for name, text := range map[string]string{"inventory.img": "i", "mm-1.img": "m", "pages-1.img": "ppp", "memory/pages-1.img": "qq",
		PlacesFile: `[{"NetworkID":"n","Address":"10.0.0.2","MAC":"02:00:00:00:00:01"}]`} {
		write(t, filepath.Join(dir, name), text)
	}
	if err := os.Symlink(supervise.MemoryDir, filepath.Join(dir, parentLink)); err != nil {
		t.Fatal(err)
	}
	diff := filepath.Join(t.TempDir(), "diff")
	write(t, diff, entries(t, "changed", "yes").String())
	f, err := os.Open(diff)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var buf bytes.Buffer
	if err := Write(&buf, dir, chain, "busybox", f); err != nil {
		t.Fatal(err)
	}
	text := buf.String()

	upper, images := t.TempDir(), t.TempDir()
	if err := Read(t.Context(), strings.NewReader(text), chain, into(upper), images); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(upper, "changed")); err != nil || string(data) != "yes" {
		t.Errorf("%q, %v", data, err)
	}
	if to, err := os.Readlink(filepath.Join(images, parentLink)); err != nil || to != supervise.MemoryDir {
		t.Errorf("the earlier dump is at %q, %v", to, err)
	}
	before, err := Look(dir)
	if err != nil || before.Processes != 1 || before.Size == 0 || !cmp.Equal(before.Addresses, []netip.Addr{netip.MustParseAddr("10.0.0.2")}, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
		t.Errorf("%+v, %v", before, err)
	}
	after, err := Look(images)
	if err != nil || after.Size != before.Size || after.Processes != before.Processes || len(after.Addresses) != 1 {
		t.Errorf("%+v, %v", after, err)
	}

	err = Read(t.Context(), strings.NewReader(text), digest.FromString("another"), into(t.TempDir()), t.TempDir())
	if !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), `"busybox"`) {
		t.Errorf("of another image: %v", err)
	}
}

// What is not a checkpoint is refused, and nothing is written beside the two places.
func TestHostileArchives(t *testing.T) {
	m := `{"Version":1,"ChainID":"` + chain.String() + `"}`
	layer := entries(t).String()
	for name, list := range map[string][]string{
		"nothing":          {},
		"no manifest":      {diffFile, layer},
		"another version":  {manifestFile, `{"Version":2,"ChainID":"` + chain.String() + `"}`},
		"no changes":       {manifestFile, m, imagesDir + "inventory.img", "i"},
		"two manifests":    {manifestFile, m, manifestFile, m},
		"no inventory":     {manifestFile, m, diffFile, layer, imagesDir + "x.img", "x"},
		"a file twice":     {manifestFile, m, diffFile, layer, imagesDir + "x.img", "x", imagesDir + "x.img", "x"},
		"out of the place": {manifestFile, m, diffFile, layer, imagesDir + "../x.img", "x"},
		"further below":    {manifestFile, m, diffFile, layer, imagesDir + "memory/x/y.img", "x"},
		"the link":         {manifestFile, m, diffFile, layer, imagesDir + parentLink, "x"},
		"something else":   {manifestFile, m, diffFile, layer, "x.img", "x"},
	} {
		root := t.TempDir()
		upper, images := filepath.Join(root, "upper"), filepath.Join(root, "images")
		if err := errors.Join(os.Mkdir(upper, 0o700), os.Mkdir(images, 0o700)); err != nil {
			t.Fatal(err)
		}
		if err := Read(t.Context(), entries(t, list...), chain, into(upper), images); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(root); err != nil || len(left) != 2 {
			t.Errorf("%s: %v, %v", name, left, err)
		}
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: manifestFile, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), w.Close()); err != nil {
		t.Fatal(err)
	}
	if err := Read(t.Context(), &buf, chain, into(t.TempDir()), t.TempDir()); !errors.Is(err, fault.Invalid) {
		t.Errorf("a link: %v", err)
	}
}

package images

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
)

func TestMain(m *testing.M) {
	code := m.Run()
	Clean()
	os.Exit(code)
}

func TestWriteRepeats(t *testing.T) {
	for _, how := range []string{"gzip", "zstd", "none"} {
		spec := Spec{Layers: 3, Files: 120, Size: 5000, Seed: 7, Compression: how}
		a, b := Make(t, spec), Make(t, spec)
		spec.Seed = 8
		c := Make(t, spec)
		if a.Manifest.Digest != b.Manifest.Digest || a.Manifest.Digest == c.Manifest.Digest {
			t.Errorf("%s: %s %s %s", how, a.Manifest.Digest, b.Manifest.Digest, c.Manifest.Digest)
		}
		var size int64
		for _, l := range a.Layers {
			size += l.Size
		}
		if ratio := float64(a.Bytes) / float64(size); how == "gzip" && (ratio < 3 || ratio > 5) {
			t.Errorf("compressed %.1f times, unlike real images", ratio)
		}
	}
}

// Foreign programs can read what is written.
func TestUmociUnpacks(t *testing.T) {
	testutil.RequireRoot(t)
	img := Make(t, Spec{Layers: 3, Files: 10})
	out := t.TempDir() + "/bundle"
	if text, err := exec.Command("umoci", "unpack", "--image", img.Dir+":"+img.Tag, out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if _, err := os.Stat(out + "/rootfs/layer2/0/file9"); err != nil {
		t.Error(err)
	}
}

func TestIndexAndDebian(t *testing.T) {
	testutil.RequireRoot(t)
	f, err := os.Open(Debian(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img := Make(t, Spec{Bases: []io.Reader{f}})
	other, err := Write(img.Dir, Spec{Seed: 3, Tag: "other"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Layout(img.Dir).Index("both", img.Manifest, other.Manifest); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	Copy(t, "oci:"+img.Dir+":both", "oci:"+to+":both")
	blob, err := os.Open(Layout(to).Path(img.Layers[0].Digest))
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	z, err := gzip.NewReader(blob)
	if err != nil {
		t.Fatal(err)
	}
	entries := 0
	for tr := tar.NewReader(z); ; entries++ {
		if _, err := tr.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if entries < 3000 {
		t.Errorf("a Debian of %d files", entries)
	}
}

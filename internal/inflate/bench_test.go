package inflate

import (
	"archive/tar"
	"bytes"
	stdgzip "compress/gzip"
	"io"
	"io/fs"
	"os"
	"runtime"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// tarball is a tar of up to size bytes of the regular files below a directory,
// as a layer, packed by gzip -6.
func tarball(b *testing.B, dir string, size int64) []byte {
	b.Helper()
	var packed bytes.Buffer
	z := stdgzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		if size -= int64(len(data)); size < 0 {
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	w.Close()
	z.Close()
	return packed.Bytes()
}

// BenchmarkGunzip reads programs and sources by this package and by the others.
func BenchmarkGunzip(b *testing.B) {
	goroot := runtime.GOROOT()
	for _, of := range []string{"bin", "src"} {
		data := tarball(b, goroot+"/"+of, 32<<20)
		for _, by := range []struct {
			name string
			open func(io.Reader) (io.ReadCloser, error)
		}{
			{"inflate", func(r io.Reader) (io.ReadCloser, error) { return NewReader(r) }},
			{"klauspost", func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
			{"std", func(r io.Reader) (io.ReadCloser, error) { return stdgzip.NewReader(r) }},
		} {
			b.Run(of+"/"+by.name, func(b *testing.B) {
				buffer := make([]byte, 256<<10)
				for b.Loop() {
					z, err := by.open(bytes.NewReader(data))
					if err != nil {
						b.Fatal(err)
					}
					n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{z}, buffer)
					if err != nil {
						b.Fatal(err)
					}
					z.Close()
					b.SetBytes(n)
				}
			})
		}
	}
}

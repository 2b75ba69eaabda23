package main

import (
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tarehq/tare/internal/inflate"
	"github.com/tarehq/tare/test/images"
)

// limits puts down what the machine itself allows, one core at a time: no
// engine can unpack the image faster than its bytes can be hashed, decompressed
// and written.
func (b *imageBench) limits(t *table) error {
	var size int64
	for _, l := range b.image.Layers {
		size += l.Size
	}
	t.note("the image has %.0f MB, by gzip %.0f MB", float64(b.image.Bytes)/1e6, float64(size)/1e6)
	plain, zst := filepath.Join(b.dir, "plain"), filepath.Join(b.dir, "zstd")
	defer os.RemoveAll(plain)
	defer os.RemoveAll(zst)
	if err := b.forms(plain, zst); err != nil {
		return err
	}
	for _, r := range []struct {
		title string
		run   func() (bytes int64, err error)
	}{
		{"sha256", func() (int64, error) { return each(plain, hashed) }},
		{"gunzip", func() (int64, error) { return each(filepath.Join(b.dir, "layers"), gunzip) }},
		{"gunzip by Go's library", func() (int64, error) { return each(filepath.Join(b.dir, "layers"), stdGunzip) }},
		{"zstd, read", func() (int64, error) { return each(zst, unzstd) }},
		{"tar -x of plain bytes to the disk", func() (int64, error) { return b.untar(plain) }},
	} {
		begin := time.Now()
		n, err := r.run()
		if err != nil {
			return err
		}
		t.add("limit: "+r.title, "MB/s", "this machine", float64(n)/1e6/time.Since(begin).Seconds())
	}
	return nil
}

// forms writes the layers plain and by zstd, and links to them by gzip.
func (b *imageBench) forms(plain, zst string) error {
	gz := filepath.Join(b.dir, "layers")
	for _, dir := range []string{plain, zst, gz} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for i, l := range b.image.Layers {
		name := fmt.Sprint(i)
		if err := os.Link(images.Layout(b.image.Dir).Path(l.Digest), filepath.Join(gz, name)); err != nil {
			return err
		}
		if err := convert(filepath.Join(gz, name), filepath.Join(plain, name), filepath.Join(zst, name)); err != nil {
			return err
		}
	}
	return nil
}

func convert(from, plain, zst string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	r, err := inflate.NewReader(in)
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := os.Create(plain)
	if err != nil {
		return err
	}
	defer p.Close()
	f, err := os.Create(zst)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewWriter(f)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.MultiWriter(p, z), r); err != nil {
		return err
	}
	return z.Close()
}

// each has f read all files of a directory and adds up its bytes.
func each(dir string, f func(io.Reader) (int64, error)) (total int64, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		in, err := os.Open(name)
		if err != nil {
			return total, err
		}
		n, err := f(in)
		in.Close()
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

func hashed(r io.Reader) (int64, error) { return io.Copy(sha256.New(), r) }

func gunzip(r io.Reader) (int64, error) {
	z, err := inflate.NewReader(r)
	if err != nil {
		return 0, err
	}
	defer z.Close()
	return io.Copy(io.Discard, z)
}

func stdGunzip(r io.Reader) (int64, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, z)
}

func unzstd(r io.Reader) (int64, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return 0, err
	}
	defer z.Close()
	return io.Copy(io.Discard, z)
}

func (b *imageBench) untar(plain string) (int64, error) {
	into := filepath.Join(b.dir, "untarred")
	defer os.RemoveAll(into)
	if err := os.Mkdir(into, 0o755); err != nil {
		return 0, err
	}
	names, err := filepath.Glob(filepath.Join(plain, "*"))
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if out, err := exec.Command("tar", "-C", into, "-xf", name).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("tar: %w: %s", err, out)
		}
	}
	return b.image.Bytes, nil
}

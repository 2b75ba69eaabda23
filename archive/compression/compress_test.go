package compression

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"testing"

	"github.com/tarehq/tare/fault"
)

// wordy is data that compresses somewhat.
func wordy(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 0, size+100)
	for len(data) < size {
		data = fmt.Appendf(data, "usr/share/%d/file-%x ", r.IntN(100), r.Uint32())
	}
	return data[:size]
}

func squeezed(t *testing.T, data []byte, c Kind, level, chunk int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := Compress(&buf, c, level)
	must(t, err)
	for rest := data; len(rest) > 0; rest = rest[min(chunk, len(rest)):] {
		_, err := w.Write(rest[:min(chunk, len(rest))])
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

func TestCompressIsReproducible(t *testing.T) {
	data := wordy(9<<20 + 17)
	for _, c := range []struct {
		Kind
		level int
	}{{Gzip, 0}, {Gzip, 1}, {Zstd, 0}, {Zstd, 1}} {
		want := squeezed(t, data, c.Kind, c.level, len(data))
		old := runtime.GOMAXPROCS(1)
		one := squeezed(t, data, c.Kind, c.level, 1<<20)
		runtime.GOMAXPROCS(7)
		many := squeezed(t, data, c.Kind, c.level, 4095)
		runtime.GOMAXPROCS(old)
		if !bytes.Equal(want, one) || !bytes.Equal(want, many) {
			t.Errorf("%s of level %d: %d, %d and %d bytes", c.Kind, c.level, len(want), len(one), len(many))
		}
		if len(want) > len(data)*3/4 {
			t.Errorf("%s of level %d: %d bytes of %d", c.Kind, c.level, len(want), len(data))
		}
		r, found, err := Decompress(bytes.NewReader(want))
		must(t, err)
		back, err := io.ReadAll(r)
		if err != nil || found != c.Kind || !bytes.Equal(back, data) {
			t.Errorf("%s of level %d was read back as %s, %d bytes, %v", c.Kind, c.level, found, len(back), err)
		}
		for _, program := range []string{"gzip", "zstd"} {
			if path, err := exec.LookPath(program); err == nil && program == string(c.Kind) {
				cmd := exec.Command(path, "-dc")
				cmd.Stdin = bytes.NewReader(want)
				if out, err := cmd.Output(); err != nil || !bytes.Equal(out, data) {
					t.Errorf("%s -dc gives %d bytes, %v", program, len(out), err)
				}
			}
		}
	}
}

func TestCompressRefuses(t *testing.T) {
	for _, c := range []struct {
		Kind
		level int
	}{{Gzip, 10}, {Gzip, -1}, {Zstd, 23}, {Zstd, -1}, {Plain, 1}} {
		if _, err := Compress(io.Discard, c.Kind, c.level); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q of level %d: %v", c.Kind, c.level, err)
		}
	}
	if _, err := Compress(io.Discard, Bzip2, 0); !errors.Is(err, fault.NotImplemented) {
		t.Error(err)
	}
	if _, err := Parse("lzma"); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestCompressNothing(t *testing.T) {
	for _, c := range []Kind{Gzip, Zstd} {
		data := squeezed(t, nil, c, 0, 1)
		r, found, err := Decompress(bytes.NewReader(data))
		if err != nil || found != c {
			t.Fatalf("%s: %d bytes: %v", c, len(data), err)
		}
		if back, err := io.ReadAll(r); len(back) > 0 || err != nil {
			t.Errorf("%s: %q, %v", c, back, err)
		}
	}
}

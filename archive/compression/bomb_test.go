package compression

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/tarehq/tare/fault"
)

// boundsOf sets what a stream may become, for one test.
func boundsOf(t testing.TB, free, ratio int64) {
	t.Helper()
	oldFree, oldRatio := bombFree, bombRatio
	bombFree, bombRatio = free, ratio
	t.Cleanup(func() { bombFree, bombRatio = oldFree, oldRatio })
}

// compressed gives the bytes in each form that Decompress knows.
func compressed(t testing.TB, data []byte) map[Kind][]byte {
	t.Helper()
	forms := map[Kind][]byte{Plain: data}
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	g.Write(data)
	g.Close()
	z, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	z.Write(data)
	z.Close()
	forms[Gzip], forms[Zstd] = gz.Bytes(), zs.Bytes()
	forms[Bzip2] = filtered(t, data, "bzip2", "-c")
	forms[Xz] = filtered(t, data, "xz", "-c", "-0")
	return forms
}

// filtered is what a program makes of the data.
func filtered(t testing.TB, data []byte, argv ...string) []byte {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(argv, err)
	}
	return out
}

func decompressed(data []byte) (int64, error) {
	r, _, err := Decompress(bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(io.Discard, r)
}

func TestBombs(t *testing.T) {
	boundsOf(t, 4<<20, 200)
	const size = 100 << 20
	for how, data := range compressed(t, make([]byte, size)) {
		n, err := decompressed(data)
		switch {
		case how == Plain:
			if n != size || err != nil {
				t.Errorf("plain: %d, %v", n, err)
			}
		case !errors.Is(err, fault.Invalid):
			t.Errorf("%s: %d bytes became %d: %v", how, len(data), n, err)
		case n > bombFree+bombRatio*int64(len(data)):
			t.Errorf("%s: %d bytes came out of %d", how, n, len(data))
		}
	}
}

// The same much of what is no bomb goes through, and so do a few zeros.
func TestNoBombs(t *testing.T) {
	boundsOf(t, 4<<20, 200)
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 24<<20)
	for i := range data {
		if data[i] = 'x'; i%50 == 0 { // about as a log
			data[i] = byte(random.Uint32())
		}
	}
	for name, data := range map[string][]byte{"log": data, "zeros": make([]byte, 3<<20)} {
		for how, form := range compressed(t, data) {
			if n, err := decompressed(form); err != nil || n != int64(len(data)) {
				t.Errorf("%s by %s: %d of %d bytes, %v", name, how, n, len(data), err)
			}
		}
	}
}

// A frame that wants more memory than the limit is refused before it gets it.
func TestZstdWindow(t *testing.T) {
	// Magic, descriptor without size, window of 2^(10+31)*1.875 bytes (RFC 8878,
	// section 3.1.1.1.2), one empty last block.
	data := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00}
	if n, err := decompressed(data); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "needs more than 128 MiB of memory") {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// Damage is told as such, and why the source failed as that.
func TestDamagedCompression(t *testing.T) {
	for how, data := range compressed(t, bytes.Repeat([]byte("some text "), 100_000)) {
		if how == Plain {
			continue
		}
		for name, damaged := range map[string][]byte{"short": data[:len(data)/2], "changed": append(bytes.Clone(data[:len(data)-12]), "123456789012"...)} {
			if _, err := decompressed(damaged); !errors.Is(err, fault.Invalid) {
				t.Errorf("%s %s: %v", how, name, err)
			}
		}
		broken := errors.New("the connection broke")
		r, _, err := Decompress(io.MultiReader(bytes.NewReader(data[:len(data)/2]), iotest.ErrReader(broken)))
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if !errors.Is(err, broken) || errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", how, err)
		}
	}
}

// FuzzDecompress: any stream ends, within its bounds.
func FuzzDecompress(f *testing.F) {
	for _, data := range compressed(f, bytes.Repeat([]byte("some text "), 50)) {
		f.Add(data)
	}
	for _, data := range compressed(f, make([]byte, 300_000)) {
		f.Add(data)
	}
	f.Add([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}) // a skippable frame alone
	f.Add([]byte{0xfd, '7', 'z', 'X', 'Z', 0})
	boundsOf(f, 1<<20, 100)
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := decompressed(data)
		if n > bombFree+bombRatio*int64(len(data)) {
			t.Errorf("%d bytes made %d, %v", len(data), n, err)
		}
	})
}

// The corpus of testdata/fuzz is run by every go test; it must be there.
func TestCorpus(t *testing.T) {
	if files, err := os.ReadDir("testdata/fuzz/FuzzDecompress"); err != nil || len(files) < 3 {
		t.Errorf("a corpus of %d files, %v", len(files), err)
	}
}

package compression

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Two streams of which each wants much memory are read one after the other, and
// one that is given up makes room for the next.
func TestLargeWindowsTakeTurns(t *testing.T) {
	data := bytes.Repeat([]byte("window"), 20<<20)
	var packed bytes.Buffer
	w, err := zstd.NewWriter(&packed, zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false))
	must(t, err)
	w.Write(data)
	must(t, w.Close())
	takeTurns(t, packed.Bytes(), packed.Bytes(), data)
	takeTurns(t, withDictionary(filtered(t, data[:1000], "xz", "-c", "-0"), 28), packed.Bytes(), data)
}

func takeTurns(t *testing.T, one, other, want []byte) {
	t.Helper()
	first, _, err := Decompress(bytes.NewReader(one))
	must(t, err)
	second := make(chan io.ReadCloser)
	go func() {
		r, _, err := Decompress(bytes.NewReader(other))
		if err != nil {
			t.Error(err)
		}
		second <- r
	}()
	usual, _, err := Decompress(bytes.NewReader(squeezed(t, want[:1<<20], Zstd, 3, 1<<20)))
	must(t, err)
	if got, err := io.ReadAll(usual); err != nil || len(got) != 1<<20 { // waits for nobody
		t.Error(len(got), err)
	}
	usual.Close()
	select {
	case <-second:
		t.Error("both were begun")
	default:
	}
	first.Close()
	r := <-second
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Error(len(got), err)
	}
}

func buffered(data []byte) *bufio.Reader { return bufio.NewReaderSize(bytes.NewReader(data), 1<<20) }

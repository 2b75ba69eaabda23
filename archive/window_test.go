package archive

import (
	"bytes"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Two streams of which each wants much memory are read one after the other, and
// one that is given up makes room for the next.
func TestLargeWindowsTakeTurns(t *testing.T) {
	var packed bytes.Buffer
	w, err := zstd.NewWriter(&packed, zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("window"), 20<<20)
	w.Write(data)
	w.Close()
	first, _, err := Decompress(bytes.NewReader(packed.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan io.ReadCloser)
	go func() {
		r, _, err := Decompress(bytes.NewReader(packed.Bytes()))
		if err != nil {
			t.Error(err)
		}
		second <- r
	}()
	usual, _, err := Decompress(bytes.NewReader(squeezed(t, data[:1<<20], Zstd, 3, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
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
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Error(len(got), err)
	}
}

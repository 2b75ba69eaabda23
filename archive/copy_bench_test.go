package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/tarehq/tare/internal/deltree"
)

// copied is a tree of 10,000 files, as cp is measured with.
func copied(b *testing.B) *os.File {
	dir, err := os.MkdirTemp("/dev/shm", "copied")
	must(b, err)
	b.Cleanup(func() { deltree.Remove(dir) })
	for d := range 100 {
		must(b, os.Mkdir(fmt.Sprintf("%s/%d", dir, d), 0o755))
		for f := range 100 {
			must(b, os.WriteFile(fmt.Sprintf("%s/%d/%d", dir, d, f), make([]byte, 4000), 0o644))
		}
	}
	place, err := os.Open(dir)
	must(b, err)
	b.Cleanup(func() { place.Close() })
	return place
}

func BenchmarkWriteOne(b *testing.B) {
	place := copied(b)
	for b.Loop() {
		must(b, WriteOne(context.Background(), io.Discard, place, "x", WriteOptions{Seconds: true}))
	}
}

func BenchmarkExtractSmall(b *testing.B) {
	var tar bytes.Buffer
	must(b, WriteOne(context.Background(), &tar, copied(b), "x", WriteOptions{Seconds: true}))
	for b.Loop() {
		dir, err := os.MkdirTemp("/dev/shm", "extracted")
		must(b, err)
		root, err := os.Open(dir)
		must(b, err)
		_, err = Extract(context.Background(), root, bytes.NewReader(tar.Bytes()), Options{Whiteouts: NoWhiteouts, Mine: true, KeepKinds: true})
		must(b, err)
		root.Close()
		b.StopTimer()
		deltree.Remove(dir)
		b.StartTimer()
	}
}

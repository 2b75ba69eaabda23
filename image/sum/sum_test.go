package sum

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/archive"
)

// TestSum hashes the archive of a tree again after one of its files was replaced:
// the digest is always that of the whole archive, and only what is behind the
// unchanged files is read.
func TestSum(t *testing.T) {
	dir := t.TempDir()
	when := time.Unix(1e9, 0)
	put := func(name string, size int) {
		t.Helper()
		data := make([]byte, size)
		_, _ = rand.Read(data) // never fails
		path := filepath.Join(dir, name)
		_ = os.Remove(path)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	for name, size := range map[string]int{"a": 3 << 20, "b": 1000, "c": 2<<20 + 17, "d": 1 << 20, "e": 5} {
		put(name, size)
	}
	var known States
	for _, step := range []struct {
		replace string
		size    int
		reads   int
	}{{reads: 3}, {reads: 0}, {replace: "c", size: 2<<20 + 17, reads: 2}, {replace: "b", size: 1000, reads: 2}, {reads: 0}, {replace: "d", size: 1 << 20, reads: 1}} {
		if step.replace != "" {
			put(step.replace, step.size)
		}
		if err := os.Chtimes(dir, when, when); err != nil { // its entry comes first
			t.Fatal(err)
		}
		want, size := wholeArchive(t, dir)
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		linked := map[uint64]bool{}
		for _, name := range []string{"a", "c", "d"} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, name), &st); err != nil {
				t.Fatal(err)
			}
			linked[st.Ino] = true
		}
		sum, reads := New(&known, linked), 0
		err = archive.Write(context.Background(), sum, archive.Tree{root}, archive.WriteOptions{Content: func(file int, st *unix.Stat_t, write func() error) error {
			before := len(known.known)
			defer func() { reads += len(known.known) - before }()
			return sum.Content(t.Context(), file, st, write)
		}})
		root.Close()
		got, n := sum.Close()
		if err != nil || got != want || n != size {
			t.Errorf("after %q: %v %d, %v: want %v %d", step.replace, got, n, err, want, size)
		}
		if reads != step.reads {
			t.Errorf("after %q: %d files were read, want %d", step.replace, reads, step.reads)
		}
	}
}

func wholeArchive(t *testing.T, dir string) (digest.Digest, int64) {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var whole bytes.Buffer
	if err := archive.Write(context.Background(), &whole, archive.Tree{root}, archive.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return digest.FromBytes(whole.Bytes()), int64(whole.Len())
}

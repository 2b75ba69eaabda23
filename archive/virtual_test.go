package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// What the kernel makes up is archived as it can be read, and what cannot be
// read stops nothing.
func TestWriteVirtual(t *testing.T) {
	write := func(path, name string) map[string]string {
		t.Helper()
		place, err := OpenPlace(mustOpen(t, "/"), path, false)
		if err != nil {
			t.Fatal(err)
		}
		defer place.Close()
		var b bytes.Buffer
		if err := WriteOne(context.Background(), &b, place, name, WriteOptions{}); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		files := map[string]string{}
		for r := tar.NewReader(&b); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				return files
			}
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			files[h.Name] = string(text)
		}
	}
	if text := write("/proc/self/status", "status")["status"]; !strings.HasPrefix(text, "Name:") {
		t.Errorf("/proc/self/status is %q", text)
	}
	own, err := os.Readlink("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	all := write("/proc/"+own, "process") // mem among them, which has no end that can be read
	if all["process/cmdline"] == "" || !strings.HasPrefix(all["process/status"], "Name:") {
		t.Errorf("of the process there are %d files", len(all))
	}
	if len(write("/sys/kernel/mm", "mm")) < 10 {
		t.Error("/sys/kernel/mm is empty")
	}
}

func mustOpen(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

package procfs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int{0, 1, 3584, 3585, 4096, 100_000} {
		want := bytes.Repeat([]byte("x"), size)
		name := filepath.Join(dir, "file")
		if err := os.WriteFile(name, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("of %d bytes %d were read, %v", size, len(got), err)
		}
	}
	want, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Read("/proc/self/limits"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Read(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) || !os.IsNotExist(err) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Read(dir); err == nil {
		t.Error("a directory was read")
	}
	if _, err := Read("a\x00b"); err == nil {
		t.Error("a name with a zero byte was opened")
	}
}

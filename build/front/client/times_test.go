package client

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tonistiigi/fsutil/types"
)

// TestDirTimes replaces files of a client's directories: the directories have the times
// that the client says, and the one above them that of before, until a name comes.
func TestDirTimes(t *testing.T) {
	dir := t.TempDir()
	when := time.Unix(1e9, 7)
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	replace := func(names ...string) time.Time {
		t.Helper()
		times := newDirTimes(dir)
		times.see("d", &types.Stat{Mode: uint32(os.ModeDir | 0o755), ModTime: when.UnixNano()})
		times.see("gone", &types.Stat{Mode: uint32(os.ModeDir | 0o755), ModTime: when.UnixNano()})
		for _, name := range names {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path+".new", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		if err := times.set(); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(filepath.Join(dir, "d")); err != nil || !fi.ModTime().Equal(when) {
			t.Errorf("the directory d is of %v, %v: want %v", fi.ModTime(), err, when)
		}
		fi, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		return fi.ModTime()
	}
	first := replace("f", "d/f")
	if again := replace("f", "d/f"); !again.Equal(first) {
		t.Errorf("the time has become %v from %v", again, first)
	}
	if again := replace("g"); again.Equal(first) {
		t.Error("a new name does not show in the time")
	}
}

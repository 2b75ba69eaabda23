package archive

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Those who look at the files of a directory find out together on which file systems
// they are: a layer's files may be on others than its directories.
func TestLookaheadLearnsDevices(t *testing.T) {
	dir := t.TempDir()
	for i := range 4 * aheadItems * aheadRuns {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	p := newPacker(t.Context(), io.Discard, WriteOptions{})
	s, err := Tree{root}.open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := p.children("", s); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if made, known := p.devices.Load(st.Dev); !known || made != false {
		t.Errorf("the file system of the files is known as %v, %v", made, known)
	}
}

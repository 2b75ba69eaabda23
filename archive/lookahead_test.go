package archive

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// However files are opened, and whoever looks at them, the archive is the same.
func TestLookahead(t *testing.T) {
	dir := t.TempDir()
	for i := range 150 {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i%3))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(fmt.Sprintf("%s/f%d", sub, i), bytes.Repeat([]byte{byte(i)}, i*i*7), 0o644); err != nil {
			t.Fatal(err)
		}
		if i%20 == 0 {
			if err := os.Link(fmt.Sprintf("%s/f%d", sub, i), fmt.Sprintf("%s/l%d", dir, i)); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(fmt.Sprintf("%s/p%d", sub, i), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	write := func(o WriteOptions, kinds bool) []byte {
		var b bytes.Buffer
		p := newPacker(t.Context(), &b, o)
		s, err := Tree{root}.open()
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		if err := p.directory("", s); err != nil {
			t.Fatal(err)
		}
		if kinds {
			err = p.children("", s)
		} else { // the first level one by one
			items, _, lerr := s.list("", true)
			if err = lerr; err != nil {
				t.Fatal(err)
			}
			for _, it := range items {
				it.kind = unix.DT_UNKNOWN
				if err = p.item("", s, it); err != nil {
					break
				}
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := p.tar.close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	want := write(WriteOptions{Verbatim: true}, false)
	for _, o := range []WriteOptions{{Verbatim: true}, {Verbatim: true, NoDevices: true}} {
		if got := write(o, true); !bytes.Equal(got, want) {
			t.Errorf("%+v: another archive, of %d bytes and not %d", o, len(got), len(want))
		}
	}
	// An end in the middle leaves no descriptor.
	before, _ := os.ReadDir("/proc/self/fd")
	for limit := 1000; limit < len(want); limit *= 4 {
		if err := Write(t.Context(), &short{limit}, Tree{root}, WriteOptions{}); err == nil {
			t.Error("no error")
		}
	}
	if after, _ := os.ReadDir("/proc/self/fd"); len(after) > len(before) {
		t.Errorf("%d descriptors are open, %d before", len(after), len(before))
	}
}

// short fails after some bytes.
type short struct{ left int }

func (s *short) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left < 0 {
		return 0, os.ErrClosed
	}
	return len(p), nil
}

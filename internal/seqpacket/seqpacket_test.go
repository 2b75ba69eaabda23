package seqpacket

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// connected returns the two ends of a connection made through a socket whose
// path is longer than an address.
func connected(t *testing.T) (a, b *Conn) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = Dial(filepath.Join(dir, "sock")); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestMessages(t *testing.T) {
	a, b := connected(t)
	for _, n := range []int{0, 1, inline, inline + 1, 1 << 20} {
		sent := bytes.Repeat([]byte("x"), n)
		if err := a.Send(sent); err != nil {
			t.Fatal(err)
		}
		got, files, err := b.Recv()
		if err != nil || !bytes.Equal(got, sent) || len(files) != 0 {
			t.Errorf("%d bytes: got %d, %d files, %v", n, len(got), len(files), err)
		}
	}
}

// Where no more files may be opened a message comes without its files, of a long
// one the beginning.
func TestFilesLost(t *testing.T) {
	a, b := connected(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	short, long := []byte(`{"id":7}`), append([]byte(`{"id":8,"body":"`), bytes.Repeat([]byte("x"), 2*inline)...)
	for _, msg := range [][]byte{short, long} {
		if err := a.Send(msg, f); err != nil {
			t.Fatal(err)
		}
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	for _, want := range [][]byte{short, long[:headSize]} {
		got, files, err := b.Recv()
		if !errors.Is(err, ErrFilesLost) || len(files) != 0 || !bytes.Equal(got, want) {
			t.Errorf("got %q, %d files, %v; want %q", got, len(files), err, want)
		}
	}
}

func TestFiles(t *testing.T) {
	a, b := connected(t)
	for _, n := range []int{1, MaxFiles} {
		for _, length := range []int{10, inline * 2} {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			files := make([]*os.File, n)
			for i := range files {
				files[i] = w
			}
			if err := a.Send(make([]byte, length), files...); err != nil {
				t.Fatal(err)
			}
			w.Close()
			msg, got, err := b.Recv()
			if err != nil || len(msg) != length || len(got) != n {
				t.Fatalf("%d bytes and %d files, %v", len(msg), len(got), err)
			}
			got[n-1].Write([]byte("hi"))
			for _, f := range got {
				f.Close()
			}
			if text, err := io.ReadAll(r); string(text) != "hi" || err != nil {
				t.Errorf("through the file came %q, %v", text, err)
			}
			r.Close()
		}
	}
	if err := a.Send(nil, make([]*os.File, MaxFiles+1)...); err == nil {
		t.Error("too many files were taken")
	}
}

func TestEnd(t *testing.T) {
	a, b := connected(t)
	a.Close()
	if _, _, err := b.Recv(); err != io.EOF {
		t.Errorf("after the peer's end: %v", err)
	}
	if _, _, err := a.Recv(); err == nil {
		t.Error("a closed connection receives")
	}
}

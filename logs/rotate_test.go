package logs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// All that is on disk stays within the bound, a record more or less, and it is
// always the newest.
func TestRotationBounds(t *testing.T) {
	for _, files := range []int{1, 2, 5} {
		path := filepath.Join(t.TempDir(), "log.json")
		rotated := 0
		w, err := NewWriter(path, Options{MaxSize: 1000, MaxFiles: files, Rotated: func() { rotated++ }})
		if err != nil {
			t.Fatal(err)
		}
		w.Write(Stdout, []byte(strings.Repeat("many in one chunk\n", 100)))
		for i := range 100 {
			w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i))
		}
		w.Close()
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(entries) != files || rotated < 10 {
			t.Errorf("%d files for %d, %d rotations, %v", len(entries), files, rotated, err)
		}
		for _, e := range entries {
			if st, err := e.Info(); err != nil || st.Size() > 1100 {
				t.Errorf("%s: %d bytes, %v", e.Name(), st.Size(), err)
			}
		}
		got := lines(t, path, ReadOptions{Tail: -1})
		for i, s := range got {
			if s != fmt.Sprint("line ", 100-len(got)+i) {
				t.Fatalf("line %d of %d is %q", i, len(got), s)
			}
		}
	}
}

// A number of files that nobody will ever have costs nothing.
func TestRotationWithoutEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.json")
	w, err := NewWriter(path, Options{MaxSize: 1, MaxFiles: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		w.Write(Stdout, fmt.Appendf(nil, "%d\n", i))
	}
	w.Close()
	if got := lines(t, path, ReadOptions{Tail: -1}); len(got) != 30 || got[0] != "0" {
		t.Errorf("%q", got)
	}
}

// What is in the way of a rotation keeps no output back.
func TestRotationThatFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.json")
	w, err := NewWriter(path, Options{MaxSize: 1000, MaxFiles: 3})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := lockDir(path, unix.LOCK_SH)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i))
	}
	if got := lines(t, path, ReadOptions{Tail: -1}); len(got) != 50 {
		t.Errorf("%d lines", len(got))
	}
	dir.Close()
	for i := range 2000 {
		w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i))
	}
	if st, err := os.Stat(path); err != nil || st.Size() > 1100 {
		t.Errorf("it was not tried again: %d bytes, %v", st.Size(), err)
	}
}

// The next process begins on a line of its own and in a new file where one is
// due, whatever the last one left.
func TestRotationAfterCrash(t *testing.T) {
	path := logFile(t, records(30)+`{"log":"torn`)
	for _, left := range []string{path + ".new", path + ".1.gz"} {
		if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w, err := NewWriter(path, Options{MaxSize: 1000, MaxFiles: 3})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("after\n"))
	w.Close()
	got := lines(t, path, ReadOptions{Tail: -1})
	if len(got) != 31 || got[30] != "after" || got[29] != "line 29" {
		t.Errorf("%q", got)
	}
	if data, err := os.ReadFile(path); err != nil || strings.Count(string(data), "\n") != 1 {
		t.Errorf("%q %v", data, err)
	}
}

// The times of a file do not fall, so that it can be searched by them.
func TestTimesRise(t *testing.T) {
	w := newTestWriter(t)
	defer w.Close()
	w.write(Stdout, []byte(strings.Repeat("x", maxLine+5)), testTime)
	w.write(Stderr, []byte("other\n"), testTime.Add(2*time.Second))
	w.write(Stdout, []byte(strings.Repeat("x", maxLine+5)+"\n"), testTime.Add(3*time.Second))
	w.write(Stdout, []byte("set back a little\n"), testTime.Add(time.Second))
	w.write(Stdout, []byte("by an hour\n"), testTime.Add(-time.Hour))
	var got []time.Duration
	for _, e := range entries(t, w) {
		got = append(got, e.Time.Sub(testTime))
	}
	if want := "[0s 2s 2s 2s 2s -1h0m0s]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// Since finds its place in a large file, with garbage in it, by few reads.
func TestSinceByBisection(t *testing.T) {
	const n = 20000
	text := records(n/2) + strings.Repeat("\x00", 300<<10) + "\n" + strings.TrimPrefix(records(n), records(n/2))
	path := logFile(t, text)
	for _, i := range []int{0, 1, n/2 - 1, n / 2, n/2 + 1, n - 1} {
		got := lines(t, path, ReadOptions{Tail: -1, Since: testTime.Add(time.Duration(i) * time.Second)})
		if len(got) != n-i || got[0] != fmt.Sprint("line ", i) {
			t.Fatalf("since %d: %d lines from %q", i, len(got), got[:1])
		}
	}
	f := &countingFile{ReaderAt: strings.NewReader(text)}
	if _, err := bisect(f, int64(len(text)), testTime.Add(n*time.Second)); err != nil || f.read > 512<<10 {
		t.Errorf("%d of %d bytes were read, %v", f.read, len(text), err)
	}
}

type countingFile struct {
	io.ReaderAt
	read int
}

func (c *countingFile) ReadAt(p []byte, at int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, at)
	c.read += n
	return n, err
}

func TestAttrs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.json")
	w, err := NewWriter(path, Options{Attrs: []byte(`{"a":"b"}`)})
	if err != nil {
		t.Fatal(err)
	}
	w.write(Stdout, []byte("x\n"), testTime)
	if got, want := content(t, w), `{"log":"x\n","stream":"stdout","attrs":{"a":"b"},"time":"2026-11-23T22:03:02.12Z"}`+"\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if e := entries(t, w); len(e) != 1 || string(e[0].Attrs) != `{"a":"b"}` {
		t.Errorf("%+v", e)
	}
}

package packed_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/logs/packed"
)

func write(t *testing.T, w *logs.Writer, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		w.Write(logs.Stdout, fmt.Appendf(nil, "line %d\n", i))
	}
}

func open(t *testing.T, path string, o logs.Options) *logs.Writer {
	t.Helper()
	w, err := logs.NewWriter(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func read(t *testing.T, path string, o logs.ReadOptions) (got []string) {
	t.Helper()
	o.Unpack = packed.Unpack
	err := logs.Read(t.Context(), path, o, func(e logs.Entry) error {
		got = append(got, strings.TrimSpace(string(e.Line)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func want(t *testing.T, got []string, from, to int) {
	t.Helper()
	if len(got) != to-from {
		t.Fatalf("%d lines, want %d to %d: %.200q", len(got), from, to-1, got)
	}
	for i, s := range got {
		if s != fmt.Sprint("line ", from+i) {
			t.Fatalf("line %d is %q, want %d", i, s, from+i)
		}
	}
}

// Every selection is the same before and after the rotated files are compressed.
func TestPackedLogReadsAsBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, logs.Options{MaxSize: 4 << 10, MaxFiles: 50})
	var times []time.Time
	for i := range 1000 {
		times = append(times, time.Now())
		write(t, w, i, i+1)
	}
	check := func() {
		t.Helper()
		want(t, read(t, path, logs.ReadOptions{Tail: -1}), 0, 1000)
		for _, n := range []int{0, 1, 30, 100, 999} {
			want(t, read(t, path, logs.ReadOptions{Tail: n}), 1000-n, 1000)
			want(t, read(t, path, logs.ReadOptions{Tail: -1, Since: times[n]}), n, 1000)
		}
		want(t, read(t, path, logs.ReadOptions{Tail: 500, Since: times[700]}), 700, 1000)
		want(t, read(t, path, logs.ReadOptions{Tail: 500, Since: times[200]}), 500, 1000)
	}
	check()
	// as a crash between its two steps leaves it
	if err := os.WriteFile(path+".3.gz", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	check()
	if err := packed.Pack(path, new(sync.Mutex)); err != nil {
		t.Fatal(err)
	}
	check()
	if names, err := logs.Rotated(path); len(names) > 0 || err != nil {
		t.Errorf("not compressed: %q %v", names, err)
	}
	write(t, w, 1000, 1100) // they move on
	want(t, read(t, path, logs.ReadOptions{Tail: 300}), 800, 1100)
}

// A follower misses no line and sees none twice, whatever is rotated and
// compressed around it and however slow it is.
func TestFollowThroughRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	const n = 3000
	w := open(t, path, logs.Options{MaxSize: 2 << 10, MaxFiles: 1000})
	running, ended := make(chan struct{}), make(chan error, 1)
	var got []string
	go func() {
		ended <- logs.Read(context.Background(), path, logs.ReadOptions{Tail: -1, Follow: true, Unpack: packed.Unpack,
			Running: func() <-chan struct{} { return running }}, func(e logs.Entry) error {
			if got = append(got, strings.TrimSpace(string(e.Line))); rand.IntN(100) == 0 {
				time.Sleep(time.Millisecond) // a client that reads slowly
			}
			return nil
		})
	}()
	for i := range n {
		write(t, w, i, i+1)
		if i%500 == 250 {
			if err := packed.Pack(path, new(sync.Mutex)); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(running)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	want(t, got, 0, n)
}

// A place is found again after rotation and compression, and by its time when
// its file is gone.
func TestFromPosition(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, logs.Options{MaxSize: 2 << 10, MaxFiles: 5})
	write(t, w, 0, 10)
	s, err := logs.Take(path, logs.Position{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at, err := s.Each(func(logs.Entry) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	rest := func(from, to int) {
		t.Helper()
		want(t, read(t, path, logs.ReadOptions{Tail: -1, From: at}), from, to)
	}
	rest(10, 10)
	write(t, w, 10, 50) // rotated once
	rest(10, 50)
	if err := packed.Pack(path, new(sync.Mutex)); err != nil {
		t.Fatal(err)
	}
	rest(10, 50)
	write(t, w, 50, 500) // its file is gone: what is left comes
	left := read(t, path, logs.ReadOptions{Tail: -1})
	rest(500-len(left), 500)
	if err := logs.Clear(path); err != nil {
		t.Fatal(err)
	}
	rest(500, 500)
	write(t, w, 500, 505)
	rest(500, 505)
	if size := logs.Size(path); size == 0 || size > 8<<10 {
		t.Errorf("%d bytes after clearing", size)
	}
}

// A log that is cleared under its writer and its follower goes on.
func TestClearWhileFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, logs.Options{MaxSize: 64 << 10, MaxFiles: 2})
	write(t, w, 0, 100)
	got := make(chan string, 200)
	running := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- logs.Read(context.Background(), path, logs.ReadOptions{Tail: -1, Follow: true,
			Running: func() <-chan struct{} { return running }}, func(e logs.Entry) error { got <- strings.TrimSpace(string(e.Line)); return nil })
	}()
	next := func(i int) {
		t.Helper()
		select {
		case s := <-got:
			if s != fmt.Sprint("line ", i) {
				t.Fatalf("%q, want line %d", s, i)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nothing came")
		}
	}
	for i := range 100 {
		next(i)
	}
	if err := logs.Clear(path); err != nil {
		t.Fatal(err)
	}
	write(t, w, 100, 101)
	next(100)
	close(running)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The end of what is compressed is the beginning of what is not, so that who
// reads plain files alone can go on there.
func TestEndOfPackedIsPlain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, path, logs.Options{MaxSize: 1 << 10, MaxFiles: 50})
	end := func(from logs.Position) (logs.Position, int) {
		t.Helper()
		s, err := logs.Take(path, from, packed.Unpack)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		n := 0
		at, err := s.Each(func(logs.Entry) error { n++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return at, n
	}
	at, written := logs.Position{}, 0
	for range 40 { // some of the places are the end of a file
		write(t, w, written, written+7)
		written += 7
		var n int
		if at, n = end(at); n != 7 {
			t.Fatalf("%d records of 7 came", n)
		}
		if err := packed.Pack(path, new(sync.Mutex)); err != nil {
			t.Fatal(err)
		}
		if at, n = end(at); n != 0 {
			t.Fatalf("%d records came twice", n)
		}
		rest, err := logs.Take(path, at, packed.Unpack)
		if err != nil {
			t.Fatal(err)
		}
		if !rest.Plain() {
			t.Fatalf("after %d records the rest is in a compressed file", written)
		}
		rest.Close()
	}
}

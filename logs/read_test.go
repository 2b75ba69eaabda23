package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// record is the record of a line of stdout, n seconds after testTime.
func record(n int) string {
	return fmt.Sprintf(`{"log":"line %d\n","stream":"stdout","time":"%s"}`+"\n", n, testTime.Add(time.Duration(n)*time.Second).Format(time.RFC3339Nano))
}

func records(n int) string {
	var s strings.Builder
	for i := range n {
		s.WriteString(record(i))
	}
	return s.String()
}

func logFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func lines(t testing.TB, path string, o ReadOptions) []string {
	t.Helper()
	var got []string
	err := Read(t.Context(), path, o, func(e Entry) error {
		got = append(got, strings.TrimSuffix(string(e.Line), "\n"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReadSelection(t *testing.T) {
	path := logFile(t, records(5))
	same(t, lines(t, path, ReadOptions{Tail: -1}), "line 0", "line 1", "line 2", "line 3", "line 4")
	same(t, lines(t, path, ReadOptions{Tail: 0}))
	same(t, lines(t, path, ReadOptions{Tail: 2}), "line 3", "line 4")
	same(t, lines(t, path, ReadOptions{Tail: 9}), "line 0", "line 1", "line 2", "line 3", "line 4")
	same(t, lines(t, path, ReadOptions{Tail: -1, Since: testTime.Add(3 * time.Second)}), "line 3", "line 4")
	same(t, lines(t, path, ReadOptions{Tail: -1, Until: testTime.Add(time.Second)}), "line 0", "line 1")
	same(t, lines(t, path, ReadOptions{Tail: 3, Until: testTime.Add(3 * time.Second)}), "line 2", "line 3")
	same(t, lines(t, filepath.Join(t.TempDir(), "none"), ReadOptions{Tail: -1}))
}

func TestTailOfLargeFile(t *testing.T) {
	const n = 10000 // several blocks
	path := logFile(t, records(n))
	for _, tail := range []int{1, 100, 5000} {
		got := lines(t, path, ReadOptions{Tail: tail})
		if len(got) != tail || got[0] != fmt.Sprint("line ", n-tail) {
			t.Errorf("tail %d: %d lines from %q", tail, len(got), got[0])
		}
	}
}

// What power loss left of a record does not count among the last ones.
func TestTailPassesTornRecords(t *testing.T) {
	path := logFile(t, record(0)+record(1)+"{\"log\":\"torn\n"+record(2)+"\x00\x00\n"+record(3)+"{\"log\":\"torn")
	for n, want := range [][]string{{}, {"line 3"}, {"line 2", "line 3"}, {"line 1", "line 2", "line 3"}, {"line 0", "line 1", "line 2", "line 3"}} {
		same(t, lines(t, path, ReadOptions{Tail: n}), want...)
	}
}

func TestGarbageHidesNothing(t *testing.T) {
	torn := record(9)
	same(t, lines(t, logFile(t, record(0)+torn[:20]), ReadOptions{Tail: -1}), "line 0")
	garbage := "\n\x00\x00\x00{]\n" + strings.Repeat("x", maxRecord+5) + "\n{}\n[1]\n"
	same(t, lines(t, logFile(t, record(0)+garbage+record(1)), ReadOptions{Tail: -1}), "line 0", "line 1")
	same(t, lines(t, logFile(t, record(0)+record(1)+torn[:30]), ReadOptions{Tail: 1}), "line 1")
}

func TestForeignRecords(t *testing.T) {
	path := logFile(t, `{"log":"a\n","stream":"stderr","attrs":{"tag":"x"},"time":"2026-11-23T22:03:02.12Z"}
{"time":"2026-11-23T22:03:02Z","stream":"stdout","log":"\ud83d\ude42\u0041\b"}
`)
	same(t, lines(t, path, ReadOptions{Tail: -1}), "a", "🙂A\b")
}

func TestErrorOfCallbackEndsRead(t *testing.T) {
	stop := errors.New("stop")
	n := 0
	err := Read(t.Context(), logFile(t, records(5)), ReadOptions{Tail: -1}, func(Entry) error { n++; return stop })
	if err != stop || n != 1 {
		t.Errorf("%v after %d records", err, n)
	}
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.json") // yet to come
	running := make(chan struct{})
	got := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- Read(t.Context(), path, ReadOptions{Tail: -1, Follow: true, Running: func() <-chan struct{} { return running }},
			func(e Entry) error { got <- string(e.Line); return nil })
	}()
	w, err := NewWriter(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		want := fmt.Sprintf("line %d\n", i)
		w.Write(Stdout, []byte(want[:4]))
		w.Write(Stdout, []byte(want[4:]))
		select {
		case s := <-got:
			if s != want {
				t.Fatalf("got %q, want %q", s, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nothing came")
		}
	}
	w.Write(Stdout, []byte("last\nend"))
	w.Close()
	close(running)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if a, b := <-got, <-got; a != "last\n" || b != "end" {
		t.Errorf("the end is %q, %q", a, b)
	}
}

func TestFollowEnds(t *testing.T) {
	path := logFile(t, records(2))
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := Read(ctx, path, ReadOptions{Tail: -1, Follow: true}, func(Entry) error {
		if n++; n == 2 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != 2 {
		t.Errorf("canceled: %v after %d", err, n)
	}
	if err := Read(t.Context(), path, ReadOptions{Tail: -1, Follow: true, Until: time.Now().Add(20 * time.Millisecond)},
		func(Entry) error { return nil }); err != nil {
		t.Errorf("until: %v", err)
	}
	if err := Read(t.Context(), path, ReadOptions{Tail: -1, Follow: true, Until: testTime},
		func(Entry) error { return nil }); err != nil {
		t.Errorf("until a time in the past: %v", err)
	}
}

// Whatever the fast decoder accepts, the full one reads in the same way; no
// input makes Decode fail.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(records(3)))
	f.Add([]byte(`{"log":"\u0041\ud83d\ude42\n","stream":"stderr","time":"2026-11-23T22:03:02.12Z"}` + "\n"))
	f.Add([]byte("{\n\x00\"log"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := Decode(bytes.NewReader(data), func(e Entry) error {
			if e.Stream != "stdout" && e.Stream != "stderr" {
				t.Errorf("stream %q", e.Stream)
			}
			return nil
		}); err != nil {
			t.Errorf("decode: %v", err)
		}
		for line := range bytes.Lines(data) {
			line = bytes.TrimSuffix(line, []byte("\n"))
			e, _, ok := decodeFast(line, nil)
			if !ok || !utf8.Valid(line) {
				continue
			}
			want, ok := decodeAny(line)
			if !ok || string(e.Line) != string(want.Line) || e.Stream != want.Stream || !e.Time.Equal(want.Time) {
				t.Errorf("%q is %+v, and in full %+v %v (valid JSON: %v)", line, e, want, ok, json.Valid(line))
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	text := records(10000)
	path := logFile(b, text)
	b.SetBytes(int64(len(text)))
	for range b.N {
		if err := Read(b.Context(), path, ReadOptions{Tail: -1}, func(Entry) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var testTime = time.Date(2026, 11, 23, 22, 3, 2, 120000000, time.UTC)

func newTestWriter(t testing.TB) *Writer {
	t.Helper()
	w, err := NewWriter(filepath.Join(t.TempDir(), "log.json"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func content(t testing.TB, w *Writer) string {
	t.Helper()
	data, err := os.ReadFile(w.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestGoldenFormat(t *testing.T) {
	w := newTestWriter(t)
	for i, chunk := range []struct {
		s    Stream
		text string
	}{
		{Stdout, "hello\n"},
		{Stderr, "two\nlines\n"},
		{Stdout, "half "},
		{Stderr, "between\n"},
		{Stdout, "line\n\n"},
		{Stdout, "quote \" backslash \\ tab \t bell \a return \r html <&> del \x7f\n"},
		{Stdout, "snowman ☃ face 🙂 separators \u2028\u2029 bad \xff\xc3\n"},
		{Stdout, "split ☃"[:len("split ☃")-1]},
		{Stdout, "☃"[2:] + "\n"},
		{Stdout, "no newline"},
	} {
		w.write(chunk.s, []byte(chunk.text), testTime.Add(time.Duration(i)*time.Second+time.Duration(i)))
	}
	w.f.Sync()
	got := content(t, w)
	golden := filepath.Join("testdata", "format.golden")
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if pending := w.Pending(Stdout); string(pending) != "no newline" {
		t.Errorf("pending %q", pending)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	last := content(t, w)[len(got):]
	if !strings.HasPrefix(last, `{"log":"no newline","stream":"stdout","time":"`) {
		t.Errorf("the end without a newline is %q", last)
	}
}

// encoding/json with HTML escaping is what the format comes from. The escapes
// of \b and \f alone are longer here.
func TestEscapesAsEncodingJSON(t *testing.T) {
	for r := rune(0); r < 0x3000; r++ {
		line := string(r) + "x"
		want, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		got := string(appendEscaped(nil, []byte(line)))
		switch r {
		case '\b', '\f', '\t':
			if len(got) != len(`\u0000x`) {
				t.Errorf("%U: %s", r, got)
			}
		default:
			if `"`+got+`"` != string(want) {
				t.Errorf("%U: got %s, want %s", r, got, want)
			}
		}
	}
}

func entries(t testing.TB, w *Writer) []Entry {
	t.Helper()
	var out []Entry
	err := Read(t.Context(), w.Name(), ReadOptions{Tail: -1}, func(e Entry) error {
		e.Line = bytes.Clone(e.Line)
		out = append(out, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLongLinesAreSplit(t *testing.T) {
	for _, c := range []struct {
		length int
		want   []int // record lengths, newline included
	}{
		{maxLine - 1, []int{maxLine}},
		{maxLine, []int{maxLine, 1}},
		{maxLine + 1, []int{maxLine, 2}},
		{3*maxLine + 7, []int{maxLine, maxLine, maxLine, 8}},
	} {
		for _, chunk := range []int{1 << 20, 1000, maxLine} {
			w := newTestWriter(t)
			line := append(bytes.Repeat([]byte("x"), c.length), '\n')
			for rest := line; len(rest) > 0; {
				n := min(chunk, len(rest))
				w.Write(Stdout, rest[:n])
				rest = rest[n:]
			}
			var got []int
			for _, e := range entries(t, w) {
				got = append(got, len(e.Line))
			}
			if len(got) != len(c.want) {
				t.Fatalf("a line of %d bytes in chunks of %d: records %v, want %v", c.length, chunk, got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("a line of %d bytes in chunks of %d: records %v, want %v", c.length, chunk, got, c.want)
				}
			}
			w.Close()
		}
	}
}

func TestSplitKeepsCharacters(t *testing.T) {
	for shift := range 4 {
		w := newTestWriter(t)
		line := strings.Repeat("x", shift) + strings.Repeat("🙂", 10000) + "\n"
		w.Write(Stdout, []byte(line))
		var got []byte
		for _, e := range entries(t, w) {
			got = append(got, e.Line...)
		}
		if string(got) != line {
			t.Errorf("shifted by %d: a character was torn", shift)
		}
		w.Close()
	}
}

func TestTornFileIsMended(t *testing.T) {
	w := newTestWriter(t)
	w.Write(Stdout, []byte("one\n"))
	w.f.WriteString(`{"log":"to`)
	w.f.Close()
	w, err := NewWriter(w.Name(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("two\n"))
	w.Close()
	if got := entries(t, w); len(got) != 2 || string(got[1].Line) != "two\n" {
		t.Errorf("entries %q", got)
	}
}

func TestDiskFull(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	// The mount is private to this thread, which ends with the test.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			for _, o := range []Options{{}, {MaxSize: 8 << 10, MaxFiles: 100}} {
				if err := unix.Mount("small", dir, "tmpfs", 0, "size=64k"); err != nil {
					return err
				}
				if err := errors.Join(fillDisk(t, dir, o), unix.Unmount(dir, 0)); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func fillDisk(t *testing.T, dir string, o Options) error {
	w, err := NewWriter(filepath.Join(dir, "log.json"), o)
	if err != nil {
		return err
	}
	const lines, chunk = 2000, 100
	for range lines / chunk {
		w.Write(Stdout, []byte(strings.Repeat("a line of some length\n", chunk)))
	}
	dropped, reason := w.Dropped()
	stored := int64(len(entries(t, w)))
	if dropped == 0 || stored == 0 || stored+dropped != lines || !errors.Is(reason, unix.ENOSPC) {
		t.Errorf("stored %d, dropped %d of %d, %v", stored, dropped, lines, reason)
	}
	// room again: what comes now is whole
	if err := unix.Mount("small", dir, "tmpfs", unix.MS_REMOUNT, "size=1m"); err != nil {
		return err
	}
	w.Write(Stdout, []byte("after\n"))
	got := entries(t, w)
	if last := got[len(got)-1]; string(last.Line) != "after\n" || int64(len(got)) != stored+1 {
		t.Errorf("after the disk was full: %d records, the last %q", len(got), last.Line)
	}
	return w.Close()
}

func FuzzWrite(f *testing.F) {
	f.Add([]byte("a\nb"), 1)
	f.Add([]byte("☃\xff\n🙂"), 2)
	f.Fuzz(func(t *testing.T, data []byte, chunk int) {
		w := newTestWriter(t)
		for rest := data; len(rest) > 0; {
			n := min(max(1, chunk), len(rest))
			w.Write(Stderr, rest[:n])
			rest = rest[n:]
		}
		w.Close()
		var got []byte
		for _, e := range entries(t, w) {
			got = append(got, e.Line...)
		}
		want := string(data)
		if !utf8.Valid(data) {
			want = string([]rune(want)) // each bad byte becomes U+FFFD
		}
		if string(got) != want {
			t.Errorf("wrote %q, read %q", want, got)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	w := newTestWriter(b)
	defer w.Close()
	chunk := bytes.Repeat([]byte("a line of forty bytes of ordinary text.\n"), 1600)
	b.SetBytes(int64(len(chunk)))
	for range b.N {
		w.Write(Stdout, chunk)
	}
}

// The time at which a long line of one stream began is not that of the other's.
func TestFlushStamps(t *testing.T) {
	w := newTestWriter(t)
	w.write(Stdout, bytes.Repeat([]byte("x"), maxLine+1), testTime)
	w.write(Stderr, []byte("y"), testTime)
	before := time.Now()
	w.Flush()
	err := Decode(strings.NewReader(content(t, w)), func(e Entry) error {
		if e.Stream == "stderr" && e.Time.Before(before) {
			t.Errorf("stderr ended at %v", e.Time)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

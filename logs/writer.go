package logs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

// Stream numbers an output as Docker's stream header does.
type Stream byte

// The outputs of a container.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// String gives the name that the stream has in the file.
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// maxLine is the length in bytes, newline included, above which a line is
// split. It is the size of the buffer that Docker reads output with.
const maxLine = 16 << 10

// PartSize is the length in bytes that a record without a newline has at least
// where its line goes on: a character is not split.
const PartSize = maxLine - utf8.UTFMax + 1

// Options are how a log is written. The zero value is one file without end.
type Options struct {
	MaxSize  int64  // bytes from which on a file is full; 0 for no bound
	MaxFiles int    // files in all, the current one among them; at least 1
	Attrs    []byte // JSON object that each record carries as "attrs"; none if empty
	Rotated  func() // called when a file is full and has become path.1; may be nil
}

// Writer appends output to a json-file. Its methods must not be called
// concurrently.
//
// A record that cannot be stored is dropped and counted: a full disk neither
// blocks nor ends the container.
type Writer struct {
	path    string
	f       *os.File
	o       Options
	size    int64     // of f, as far as we wrote it
	limit   int64     // size from which on the file is to be rotated
	stored  time.Time // of the newest record
	parts   [2]partial
	torn    bool // the file ends in the middle of a record
	dropped int64
	err     error
}

// partial is the beginning of a line whose newline has not come yet.
type partial struct {
	buf   []byte
	begun time.Time // time of the line's first record once a record of it is written
}

// encodeBufs holds the buffers of encoded records. A Pool gives its memory
// back when the output falls silent.
var encodeBufs = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// storeSize is how many encoded bytes are collected at most before they are
// written: a chunk of empty lines takes seventy times its own length.
const storeSize = 256 << 10

// NewWriter opens the json-file at path for appending, and makes it, mode
// 0640, if it does not exist. Its directory must exist.
func NewWriter(path string, o Options) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log: %w", err)
	}
	w := &Writer{path: path, f: f, o: o}
	if err := w.inspect(); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot read the log: %w", err)
	}
	return w, nil
}

// inspect finds how long the file is, and whether its last byte is no newline,
// as a writer leaves it that was killed or met a full disk in the middle of a
// write.
func (w *Writer) inspect() error {
	st, err := w.f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		w.o.MaxSize = 0
		return nil
	}
	w.size, w.limit = st.Size(), w.o.MaxSize
	if w.size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := w.f.ReadAt(last[:], w.size-1); err != nil && err != io.EOF {
		return err
	}
	w.torn = last[0] != '\n'
	at, _, err := tailOffset(w.f, w.size, 1)
	if err != nil {
		return err
	}
	return Decode(io.NewSectionReader(w.f, at, w.size-at), func(e Entry) error { w.stored = e.Time; return nil })
}

// Write stores chunk. The end of it that is no whole line yet waits for the
// rest of its line, for maxLine bytes, or for Close.
func (w *Writer) Write(s Stream, chunk []byte) {
	w.write(s, chunk, time.Now())
}

// backSteps is how far the clock may be set back before the times of records
// go back with it.
const backSteps = time.Minute

// now orders t behind the records that are written. The times of a file rise,
// which is what it is searched by, unless it is marked.
func (w *Writer) now(t time.Time) time.Time {
	t = t.UTC()
	if t.Before(w.stored) {
		if w.stored.Sub(t) < backSteps || markUnordered(w.f) != nil {
			return w.stored
		}
		w.stored = t
	}
	return t
}

func (w *Writer) write(s Stream, chunk []byte, now time.Time) {
	out := encodeBufs.Get().(*[]byte)
	defer encodeBufs.Put(out)
	var tailBuf [256]byte
	var stampBuf [len(time.RFC3339Nano)]byte
	now = w.now(now)
	tail := appendTail(tailBuf[:0], s, w.o.Attrs, now.AppendFormat(stampBuf[:0], time.RFC3339Nano))

	p := w.part(s)
	b := (*out)[:0]
	for len(chunk) > 0 {
		window := chunk[:min(len(chunk), maxLine-len(p.buf))]
		if i := bytes.IndexByte(window, '\n'); i >= 0 {
			if len(p.buf) == 0 && p.begun.IsZero() {
				b = append(b, recordHead...)
				b = appendEscaped(b, chunk[:i])
				b = append(b, `\n`...)
				b = append(b, tail...)
				w.stored = now
			} else {
				b = w.appendLine(b, s, chunk[:i+1], now)
			}
			chunk = chunk[i+1:]
		} else {
			chunk = chunk[len(window):]
			p.buf = append(p.buf, window...)
			if len(p.buf) == maxLine {
				b = w.appendSplit(b, s, now)
			}
		}
		if len(b) > storeSize {
			w.store(b)
			b = b[:0]
		}
	}
	*out = b
	w.store(b)
}

func (w *Writer) part(s Stream) *partial {
	if s == Stderr {
		return &w.parts[1]
	}
	return &w.parts[0]
}

// appendLine appends the record that ends a line that has begun before.
func (w *Writer) appendLine(b []byte, s Stream, end []byte, now time.Time) []byte {
	p := w.part(s)
	if !p.begun.IsZero() {
		now = p.begun
	}
	// joined first: a character may lie across the boundary
	b = w.appendRecord(b, s, append(p.buf, end...), now)
	*p = partial{}
	return b
}

// appendSplit appends a record without a newline of what s has begun, and
// keeps the bytes of a character that is not complete yet.
func (w *Writer) appendSplit(b []byte, s Stream, now time.Time) []byte {
	p := w.part(s)
	if p.begun.IsZero() {
		p.begun = now
	}
	cut := len(p.buf) - incompleteRune(p.buf)
	b = w.appendRecord(b, s, p.buf[:cut], p.begun)
	p.buf = append(p.buf[:0], p.buf[cut:]...)
	return b
}

// appendRecord appends a record of a line that began at the given time. All
// parts of a line have the time of the first, as with Docker, but where the
// other stream has been written since: the times of a file do not fall.
func (w *Writer) appendRecord(b []byte, s Stream, line []byte, begun time.Time) []byte {
	if w.stored.Before(begun) {
		w.stored = begun
	}
	var stamp [len(time.RFC3339Nano)]byte
	b = append(b, recordHead...)
	b = appendEscaped(b, line)
	return appendTail(b, s, w.o.Attrs, w.stored.AppendFormat(stamp[:0], time.RFC3339Nano))
}

// incompleteRune returns how many bytes at the end of p begin a character
// whose rest is missing.
func incompleteRune(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		c := p[len(p)-n]
		if utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(p[len(p)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// Pending returns the bytes of a line of s that were written to w and are not
// in the file yet, because its newline has not come. They are valid until the
// next call.
func (w *Writer) Pending(s Stream) []byte { return w.part(s).buf }

// Name returns the path that w was made with.
func (w *Writer) Name() string { return w.path }

// Dropped returns how many records could not be stored, and the first reason.
func (w *Writer) Dropped() (records int64, err error) { return w.dropped, w.err }

// Flush stores what waits for a newline, as records without one.
func (w *Writer) Flush() {
	now := w.now(time.Now())
	for _, s := range []Stream{Stdout, Stderr} {
		p := w.part(s)
		if len(p.buf) == 0 {
			continue
		}
		begun := now
		if !p.begun.IsZero() {
			begun = p.begun
		}
		w.store(w.appendRecord(nil, s, p.buf, begun))
		*p = partial{}
	}
}

// Close flushes and closes the file. A failed write is no error of Close: see
// Dropped.
func (w *Writer) Close() error {
	w.Flush()
	return w.f.Close()
}

// store writes whole records, each into the file that has room when it comes.
func (w *Writer) store(records []byte) {
	for len(records) > 0 {
		part := records
		if w.o.MaxSize > 0 {
			if w.size >= w.limit {
				w.rotate()
			}
			part = records[:w.fitting(records)]
		}
		if !w.append(part) {
			w.drop(records[len(part):], nil)
			return
		}
		records = records[len(part):]
	}
}

// fitting returns the length of the records up to the one with which the file
// is full.
func (w *Writer) fitting(records []byte) int {
	room := max(w.limit-w.size, 1)
	if int64(len(records)) <= room {
		return len(records)
	}
	return int(room) + bytes.IndexByte(records[room-1:], '\n')
}

// append writes records to the file and tells whether all of them are in it.
func (w *Writer) append(records []byte) bool {
	if w.torn {
		// the newline makes garbage of the torn record alone
		if _, err := w.f.Write([]byte{'\n'}); err != nil {
			w.drop(records, err)
			return false
		}
		w.torn = false
	}
	n, err := w.f.Write(records)
	w.size += int64(n)
	if err != nil {
		w.torn = n > 0 && records[n-1] != '\n'
		w.drop(records[n:], err)
		return false
	}
	return true
}

func (w *Writer) drop(records []byte, err error) {
	w.dropped += int64(bytes.Count(records, []byte{'\n'}))
	if w.err == nil {
		w.err = err
	}
}

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

// Writer appends output to a json-file. Its methods must not be called
// concurrently.
//
// A record that cannot be stored is dropped and counted: a full disk neither
// blocks nor ends the container.
type Writer struct {
	f       *os.File
	parts   [2]partial
	torn    bool // the file ends in the middle of a record
	dropped int64
	err     error
}

// partial is the beginning of a line whose newline has not come yet.
type partial struct {
	buf   []byte
	stamp []byte // time of the line's first record once a record of it is written
}

// encodeBufs holds the buffers of encoded records. A Pool gives its memory
// back when the output falls silent.
var encodeBufs = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// NewWriter opens the json-file at path for appending, and makes it, mode
// 0640, if it does not exist. Its directory must exist.
func NewWriter(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log: %w", err)
	}
	torn, err := endsTorn(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot read the log: %w", err)
	}
	return &Writer{f: f, torn: torn}, nil
}

// endsTorn tells whether the last byte of f is no newline, as a writer leaves
// it that was killed or met a full disk in the middle of a write.
func endsTorn(f *os.File) (bool, error) {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 || !st.Mode().IsRegular() {
		return false, err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], st.Size()-1); err != nil && err != io.EOF {
		return false, err
	}
	return last[0] != '\n', nil
}

// Write stores chunk, in one write(2). The end of it that is no whole line yet
// waits for the rest of its line, for maxLine bytes, or for Close.
func (w *Writer) Write(s Stream, chunk []byte) {
	w.write(s, chunk, time.Now())
}

func (w *Writer) write(s Stream, chunk []byte, now time.Time) {
	out := encodeBufs.Get().(*[]byte)
	defer encodeBufs.Put(out)
	var stampBuf [len(time.RFC3339Nano)]byte
	stamp := now.UTC().AppendFormat(stampBuf[:0], time.RFC3339Nano)

	p := w.part(s)
	b := (*out)[:0]
	for len(chunk) > 0 {
		window := chunk[:min(len(chunk), maxLine-len(p.buf))]
		if i := bytes.IndexByte(window, '\n'); i >= 0 {
			b = p.appendLine(b, s, chunk[:i+1], stamp)
			chunk = chunk[i+1:]
			continue
		}
		chunk = chunk[len(window):]
		p.buf = append(p.buf, window...)
		if len(p.buf) == maxLine {
			b = p.appendSplit(b, s, stamp)
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

// appendLine appends the record that ends the line with end.
func (p *partial) appendLine(b []byte, s Stream, end, stamp []byte) []byte {
	if len(p.stamp) > 0 {
		stamp = p.stamp
	}
	if len(p.buf) > 0 {
		// joined first: a character may lie across the boundary
		p.buf = append(p.buf, end...)
		end = p.buf
	}
	b = appendRecord(b, s, end, stamp)
	*p = partial{}
	return b
}

// appendSplit appends a record without a newline of what p holds, and keeps
// the bytes of a character that is not complete yet.
func (p *partial) appendSplit(b []byte, s Stream, stamp []byte) []byte {
	if len(p.stamp) == 0 {
		p.stamp = bytes.Clone(stamp)
	}
	cut := len(p.buf) - incompleteRune(p.buf)
	b = appendRecord(b, s, p.buf[:cut], p.stamp)
	p.buf = append(p.buf[:0], p.buf[cut:]...)
	return b
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
func (w *Writer) Name() string { return w.f.Name() }

// Dropped returns how many records could not be stored, and the first reason.
func (w *Writer) Dropped() (records int64, err error) { return w.dropped, w.err }

// Flush stores what waits for a newline, as records without one.
func (w *Writer) Flush() {
	now := time.Now().UTC().AppendFormat(nil, time.RFC3339Nano)
	for _, s := range []Stream{Stdout, Stderr} {
		p := w.part(s)
		if len(p.buf) == 0 {
			continue
		}
		stamp := now
		if len(p.stamp) > 0 {
			stamp = p.stamp
		}
		w.store(appendRecord(nil, s, p.buf, stamp))
		*p = partial{}
	}
}

// Close flushes and closes the file. A failed write is no error of Close: see
// Dropped.
func (w *Writer) Close() error {
	w.Flush()
	return w.f.Close()
}

// store writes whole records.
func (w *Writer) store(records []byte) {
	if len(records) == 0 {
		return
	}
	if w.torn {
		// the newline makes garbage of the torn record alone
		if _, err := w.f.Write([]byte{'\n'}); err != nil {
			w.drop(records, err)
			return
		}
		w.torn = false
	}
	n, err := w.f.Write(records)
	if err != nil {
		w.torn = n > 0 && records[n-1] != '\n'
		w.drop(records[n:], err)
	}
}

func (w *Writer) drop(records []byte, err error) {
	w.dropped += int64(bytes.Count(records, []byte{'\n'}))
	if w.err == nil {
		w.err = err
	}
}

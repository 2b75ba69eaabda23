// Package logs reads and writes container logs in the json-file format: one
// JSON object a line, byte for byte as Docker writes it, so that the tools that
// collect those files work.
//
//	{"log":"hello\n","stream":"stdout","time":"2026-11-23T22:03:02.123456789Z"}
//
// "log" carries the line with its newline. A line longer than 16 KiB is split
// into records without a newline but the last, and so ends an output that
// stops in the middle of a line. Bytes that are no UTF-8 become U+FFFD, as the
// format cannot carry them.
package logs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// Entry is one record of a log.
type Entry struct {
	Stream string // "stdout" or "stderr"
	Time   time.Time
	// Line ends with its newline; without one the line goes on in the stream's
	// next record. It is valid until the callback returns.
	Line []byte
}

// ReadOptions choose what Read passes on.
type ReadOptions struct {
	Since, Until time.Time // zero: no bound; both are inclusive
	Tail         int       // only so many records from the end of the file; -1 for all
	Follow       bool      // go on with what is written later
	// Running gives the channel that is closed when nothing more will be
	// written; with Follow. Nil: Read goes on until ctx or Until end it.
	Running func() <-chan struct{}
}

// Read passes the records of the json-file at path to each, the oldest first,
// and returns the first error of each. A file that does not exist is an empty
// log. What is no record is passed over; so is an incomplete one at the end.
//
// With Follow, Read returns when the channel of Running is closed and the file
// has been read to its end, when a record or the time is after Until, or with
// the error of ctx.
func Read(ctx context.Context, path string, o ReadOptions, each func(Entry) error) error {
	r := &reader{path: path, o: o, each: each}
	defer r.close()
	read := r.drain
	if o.Follow {
		read = r.follow
	}
	if err := read(ctx); err != nil && err != errPast {
		return err
	}
	return nil
}

// Decode passes the records in src to each, as Read does.
func Decode(src io.Reader, each func(Entry) error) error {
	d := decoder{each: each}
	buf := make([]byte, readSize)
	for {
		n, err := src.Read(buf)
		if err := d.feed(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readSize is how many bytes of a file are read at once.
const readSize = 64 << 10

// errPast ends the reading at the first record after Until.
var errPast = errors.New("past the end of the interval")

// reader is one call of Read.
type reader struct {
	path string
	o    ReadOptions
	each func(Entry) error
	f    *os.File
	src  io.Reader // f, without Follow only what it held at first
	buf  []byte
	d    decoder
}

func (r *reader) close() {
	if r.f != nil {
		r.f.Close()
	}
}

// drain passes on all records that are in the file now.
func (r *reader) drain(ctx context.Context) error {
	if err := r.open(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.src.Read(r.buf)
		if err := r.d.feed(r.buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// open opens the file once it exists, and goes to where Tail begins.
func (r *reader) open() error {
	if r.f != nil {
		return nil
	}
	f, err := os.Open(r.path)
	if err != nil {
		return err
	}
	if err := r.use(f); err != nil {
		f.Close()
		return err
	}
	return nil
}

func (r *reader) use(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	var start int64
	if r.o.Tail >= 0 {
		if start, err = tailOffset(f, st.Size(), r.o.Tail); err != nil {
			return err
		}
		if _, err := f.Seek(start, io.SeekStart); err != nil {
			return err
		}
	}
	r.f, r.src, r.buf = f, f, make([]byte, readSize)
	if !r.o.Follow {
		// an output that never pauses must not keep us here
		r.src = io.LimitReader(f, st.Size()-start)
	}
	r.d = decoder{each: r.filter}
	return nil
}

func (r *reader) filter(e Entry) error {
	if !r.o.Until.IsZero() && e.Time.After(r.o.Until) {
		return errPast
	}
	if !r.o.Since.IsZero() && e.Time.Before(r.o.Since) {
		return nil
	}
	return r.each(e)
}

// tailOffset returns where the last n whole records in the first size bytes of
// f begin. What power loss left of one, ended by a newline later, is none.
func tailOffset(f io.ReaderAt, size int64, n int) (int64, error) {
	buf := make([]byte, readSize)
	newline := false // the byte behind was one
	for end := size; end > 0; {
		start := max(0, end-readSize)
		block := buf[:end-start]
		if _, err := f.ReadAt(block, start); err != nil && err != io.EOF {
			return 0, err
		}
		for i := len(block) - 1; i >= 0; i-- {
			if newline && block[i] == '}' {
				n--
			}
			newline = block[i] == '\n'
			if newline && n == 0 {
				return start + int64(i) + 1, nil
			}
		}
		end = start
	}
	return 0, nil
}

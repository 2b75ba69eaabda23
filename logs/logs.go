// Package logs reads and writes container logs in the json-file format: one
// JSON object a line, byte for byte as Docker writes it, so that the tools that
// collect those files work.
//
//	{"log":"hello\n","stream":"stdout","time":"2026-11-23T22:03:02.123456789Z"}
//
// "log" carries the line with its newline. A line longer than 16 KiB is split
// into records without a newline but the last, and so ends an output that
// stops in the middle of a line. Bytes that are no UTF-8 become U+FFFD, as the
// format cannot carry them. "attrs", an object of strings, stands before "time"
// where the log's options ask for it.
//
// A log is a file and what was rotated out of it, the higher number the older:
//
//	path  path.1  path.2.gz  …
//
// Rotation renames, so that who has a file open reads it to its end. The names
// change under flock(2) on the directory, held for a few renames and never over
// reading or writing; the writer does not wait for it. The times of the records
// rise, so a moment is found by bisection and needs no index; after the clock was
// set back by more than a minute they do not, and the file has the attribute
// user.tare.unordered, by which all is read. Who comes back
// finds a file by its inode and by a hash of its first line (Position).
package logs

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"
)

// Entry is one record of a log.
type Entry struct {
	Stream string // "stdout" or "stderr"
	Time   time.Time
	// Line ends with its newline; without one the line goes on in the stream's
	// next record, or ended with the output if it is shorter than PartSize. It is
	// valid until the callback returns.
	Line  []byte
	Attrs []byte // JSON object of strings; nil without
}

// Unpack decompresses a rotated file.
type Unpack func(io.Reader) (io.Reader, error)

// ReadOptions choose what Read passes on.
type ReadOptions struct {
	Since, Until time.Time // zero: no bound; both are inclusive
	Tail         int       // only so many records from the end of the log; -1 for all
	Follow       bool      // go on with what is written later
	// Running gives the channel that is closed when nothing more will be
	// written; with Follow. Nil: Read goes on until ctx or Until end it.
	Running func() <-chan struct{}
	From    Position // where an earlier reading stopped; with Tail -1
	// Block is called behind the records of each block of the log, with the
	// place up to which all was passed on. May be nil.
	Block func(Position) error
	// Unpack reads compressed files. Nil: they are passed over.
	Unpack Unpack
}

// Read passes the records of the log at path to each, the oldest first, and
// returns the first error of each. A log that does not exist is an empty one.
// What is no record is passed over; so is an incomplete one at the end.
//
// With Follow, Read returns when the channel of Running is closed and the log
// has been read to its end, when a record or the time is after Until, or with
// the error of ctx. It misses no record for rotation, however far it is behind,
// unless the files in between were deleted before it came to them.
func Read(ctx context.Context, path string, o ReadOptions, each func(Entry) error) error {
	r, err := open(path, o)
	if err != nil {
		return err
	}
	defer r.close()
	r.each = each
	read := r.drain
	if o.Follow {
		read = r.follow
	}
	if err := read(ctx); err != nil && err != errPast {
		return err
	}
	return nil
}

// Snapshot is what a log held at one moment.
type Snapshot struct{ r *reader }

// Take takes hold of all that is in the log at path now, from a place on, but
// for compressed files without an unpack. It must be closed.
func Take(path string, from Position, unpack Unpack) (*Snapshot, error) {
	r, err := open(path, ReadOptions{Tail: -1, From: from, Unpack: unpack})
	return &Snapshot{r}, err
}

// Each passes the records on, once, and returns the place behind them.
func (s *Snapshot) Each(each func(Entry) error) (Position, error) {
	end := s.r.o.From
	s.r.each = each
	s.r.o.Block = func(p Position) error { end = p; return nil }
	return end, s.r.drain(context.Background())
}

// Plain tells whether all that the snapshot is of is in files that are not
// compressed.
func (s *Snapshot) Plain() bool {
	return !slices.ContainsFunc(s.r.files, func(f *file) bool { return f.packed })
}

// Close lets go of the files.
func (s *Snapshot) Close() { s.r.close() }

// Decode passes the records in src to each, as Read does.
func Decode(src io.Reader, each func(Entry) error) error {
	d := decoder{each: each}
	return d.all(src)
}

// all feeds the decoder until the end of src.
func (d *decoder) all(src io.Reader) error {
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

package logs

import (
	"io"
	"slices"
	"time"
)

// seek drops the files before the one where the options begin, and finds where
// in that one.
func (r *reader) seek() error {
	if len(r.files) == 0 {
		return nil
	}
	first := 0
	switch {
	case r.o.Tail >= 0:
		i, err := r.seekTail(r.o.Tail)
		if err != nil {
			return err
		}
		first = i
	case r.o.From != Position{}:
		if i := r.locate(r.o.From); i >= 0 {
			first = i
			break
		}
		// What had the same time as the last one comes again, rather than not.
		if t := time.Unix(0, r.o.From.Time); r.o.From.Time != 0 && r.o.Since.Before(t) && !r.mixed {
			r.o.Since = t
		}
	}
	if !r.o.Since.IsZero() && !r.mixed {
		i, at, err := r.seekTime(r.o.Since)
		if err != nil {
			return err
		}
		if i > first {
			first = i
			r.files[i].start, r.files[i].skip = at, 0
		} else if f := r.files[i]; i == first && at > f.start && f.skip == 0 {
			f.start = at
		}
	}
	closeFiles(r.files[:first])
	r.files = r.files[first:]
	return nil
}

// locate returns the index of the file that a place is in, whose start it
// sets; -1 if the file is gone.
func (r *reader) locate(p Position) int {
	same := func(f *file) bool { // a file that was empty has its first line since
		return f.head(r.o.Unpack) == p.Head || p.Head == 0 && p.Offset == 0
	}
	i := slices.IndexFunc(r.files, func(f *file) bool { return !f.packed && f.inode == p.Inode && same(f) && p.Offset <= f.size })
	if i < 0 && p.Head != 0 {
		i = slices.IndexFunc(r.files, func(f *file) bool { return f.packed && same(f) })
	}
	if i >= 0 {
		r.files[i].start = p.Offset
	}
	return i
}

// seekTail finds where the last n records begin.
func (r *reader) seekTail(n int) (int, error) {
	for i := len(r.files) - 1; ; i-- {
		f := r.files[i]
		var have int
		var err error
		if f.packed {
			have = r.count(f)
			f.skip = max(0, have-n)
		} else if f.start, have, err = tailOffset(f.f, f.size, n); err != nil {
			return 0, err
		}
		if n -= have; n <= 0 || i == 0 {
			return i, nil
		}
	}
}

// count returns the number of records of a compressed file.
func (r *reader) count(f *file) (n int) {
	if src, err := f.content(r.o.Unpack); err == nil {
		d := decoder{each: func(Entry) error { n++; return nil }}
		_ = d.all(src) // what is damaged ends there when it is read, too
	}
	return n
}

// seekTime returns a place before which no record is of time t or later.
func (r *reader) seekTime(t time.Time) (i int, at int64, err error) {
	for i = len(r.files) - 1; i > 0; i-- {
		if first, ok := r.firstTime(r.files[i]); ok && first.Before(t) {
			break
		}
	}
	f := r.files[i]
	if f.packed {
		return i, 0, nil
	}
	at, err = bisect(f.f, f.size, t)
	return i, at, err
}

// firstTime returns the time of a file's first record.
func (r *reader) firstTime(f *file) (t time.Time, ok bool) {
	src, err := f.content(r.o.Unpack)
	if err != nil {
		return t, false
	}
	d := decoder{each: func(e Entry) error { t = e.Time; return errFound }}
	return t, d.all(src) == errFound
}

// bisect returns the beginning of a record before which none is of time t or
// later, at most a block before the first that is.
func bisect(f io.ReaderAt, size int64, t time.Time) (int64, error) {
	low, high := int64(0), size
	for high-low > readSize {
		middle := low + (high-low)/2
		begin, when, err := recordAfter(f, middle, high)
		switch {
		case err == nil || err == io.EOF: // no record begins in this half
			high = middle
		case err != errFound:
			return 0, err
		case when.Before(t):
			low = begin
		default:
			high = middle
		}
	}
	return low, nil
}

// recordAfter finds the first whole record between two offsets and its time,
// with errFound.
func recordAfter(f io.ReaderAt, from, to int64) (begin int64, t time.Time, err error) {
	d := decoder{at: from, skip: true, each: func(e Entry) error { t = e.Time; return errFound }}
	buf := make([]byte, 4<<10)
	for from < to {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), to-from)], from)
		from += int64(n)
		if ferr := d.feed(buf[:n]); ferr != nil {
			return d.at, t, ferr
		}
		if err != nil {
			return 0, t, err
		}
		if len(buf) < readSize { // a record is mostly short
			buf = make([]byte, 2*len(buf))
		}
	}
	return 0, t, nil
}

// tailOffset returns where the last n whole records in the first size bytes of
// f begin, and how many there are of them. What power loss left of one, ended
// by a newline later, is none.
func tailOffset(f io.ReaderAt, size int64, n int) (at int64, have int, err error) {
	buf := make([]byte, readSize)
	newline := false // the byte behind was one
	for end := size; end > 0; {
		start := max(0, end-readSize)
		block := buf[:end-start]
		if _, err := f.ReadAt(block, start); err != nil && err != io.EOF {
			return 0, 0, err
		}
		for i := len(block) - 1; i >= 0; i-- {
			if newline && block[i] == '}' {
				have++
			}
			newline = block[i] == '\n'
			if newline && have == n {
				return start + int64(i) + 1, have, nil
			}
		}
		end = start
	}
	return 0, have, nil
}

package logs

import (
	"context"
	"io"
	"os"
	"slices"
	"time"
)

// reader is one call of Read.
type reader struct {
	path  string
	o     ReadOptions
	each  func(Entry) error
	files []*file // what is still to be read; the first one is being read
	buf   []byte
	d     decoder
	last  time.Time // of the newest record that was passed on
	mixed bool      // the times of the files do not rise
}

// open opens the log and goes to where the options begin.
func open(path string, o ReadOptions) (*reader, error) {
	r := &reader{path: path, o: o, buf: make([]byte, readSize)}
	var err error
	if r.files, err = openFiles(path, o.Unpack != nil); err != nil {
		return nil, err
	}
	r.mixed = slices.ContainsFunc(r.files, func(f *file) bool { return isUnordered(f.f) })
	if err := r.seek(); err != nil {
		r.close()
		return nil, err
	}
	if o.From.Time != 0 {
		r.last = time.Unix(0, o.From.Time)
	}
	r.begin()
	return r, nil
}

func (r *reader) close() {
	closeFiles(r.files)
	r.files = nil
}

// begin readies the decoder for the first file.
func (r *reader) begin() {
	if len(r.files) == 0 {
		return
	}
	f := r.files[0]
	f.at = f.start
	r.d = decoder{each: r.filter, at: f.start, rest: r.d.rest[:0], scratch: r.d.scratch}
}

// next drops the first file. The beginning of the next one is a place of its
// own: the end of a compressed file would be looked for in that.
func (r *reader) next() error {
	r.files[0].f.Close()
	r.files = r.files[1:]
	r.begin()
	return r.report()
}

// drain passes on all records that are in the log now.
func (r *reader) drain(ctx context.Context) error {
	for {
		if len(r.files) == 0 {
			if more, err := r.more(nil); err != nil || !more {
				return err
			}
		}
		if err := r.drainFile(ctx); err != nil {
			return err
		}
		if len(r.files) > 1 {
			if err := r.next(); err != nil {
				return err
			}
			continue
		}
		if !r.o.Follow || !r.rotated() {
			return nil
		}
		// What was written before the rotation may have come after we met the end.
		if err := r.drainFile(ctx); err != nil {
			return err
		}
		if more, err := r.more(r.files[0]); err != nil || !more {
			return err
		}
		if err := r.next(); err != nil {
			return err
		}
	}
}

// rotated tells whether the file that is read has another name by now.
func (r *reader) rotated() bool {
	st, err := os.Stat(r.path)
	return err == nil && inodeOf(st) != r.files[0].inode
}

// more opens the files that came after f; all if f is nil or gone.
func (r *reader) more(f *file) (bool, error) {
	if f == nil && !r.o.Follow {
		return false, nil
	}
	files, err := openFiles(r.path, r.o.Unpack != nil)
	if err != nil {
		return false, err
	}
	if f != nil {
		if i := r.find(files, f); i >= 0 {
			closeFiles(files[:i+1])
			files = files[i+1:]
		}
	}
	if len(files) == 0 {
		return false, nil
	}
	r.files = append(r.files, files...)
	if f == nil {
		r.begin()
	}
	return true, nil
}

// find returns the index of a file in its present form, -1 if it is gone.
func (r *reader) find(files []*file, f *file) int {
	if i := slices.IndexFunc(files, func(x *file) bool { return x.inode == f.inode && x.packed == f.packed }); i >= 0 {
		return i // ours is open: its inode is nobody else's
	}
	head := f.head(r.o.Unpack)
	return slices.IndexFunc(files, func(x *file) bool { return head != 0 && x.head(r.o.Unpack) == head })
}

// drainFile passes on what is in the first file.
func (r *reader) drainFile(ctx context.Context) error {
	f := r.files[0]
	if f.packed {
		return r.drainPacked(ctx, f)
	}
	if r.o.Follow {
		st, err := f.f.Stat()
		if err != nil {
			return err
		}
		if st.Size() < f.at { // it was cleared
			f.start, f.first = 0, 0
			r.begin()
		}
	}
	for {
		room := r.buf
		if !r.o.Follow { // an output that never pauses must not keep us here
			room = room[:min(int64(len(room)), max(0, f.size-f.at))]
			if len(room) == 0 {
				return nil
			}
		}
		n, err := f.f.ReadAt(room, f.at)
		f.at += int64(n)
		if ferr := r.pass(ctx, f, room[:n]); ferr != nil {
			return ferr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// drainPacked passes on a compressed file, to where it is damaged.
func (r *reader) drainPacked(ctx context.Context, f *file) error {
	src, err := f.content(r.o.Unpack)
	if err == nil {
		_, err = io.CopyN(io.Discard, src, f.start)
	}
	for err == nil {
		var n int
		n, err = src.Read(r.buf)
		if ferr := r.pass(ctx, f, r.buf[:n]); ferr != nil {
			return ferr
		}
	}
	return nil
}

// pass feeds one block.
func (r *reader) pass(ctx context.Context, f *file, block []byte) error {
	if err := ctx.Err(); err != nil || len(block) == 0 {
		return err
	}
	if err := r.d.feed(block); err != nil {
		return err
	}
	return r.report()
}

// report tells the place up to which all was passed on.
func (r *reader) report() error {
	if r.o.Block == nil {
		return nil
	}
	f := r.files[0]
	at := Position{Inode: f.inode, Head: f.head(r.o.Unpack), Offset: r.d.at}
	if !r.last.IsZero() {
		at.Time = r.last.UnixNano()
	}
	return r.o.Block(at)
}

func (r *reader) filter(e Entry) error {
	if f := r.files[0]; f.skip > 0 {
		f.skip--
		return nil
	}
	if !r.o.Until.IsZero() && e.Time.After(r.o.Until) {
		if r.mixed {
			return nil
		}
		return errPast
	}
	r.last = e.Time
	if !r.o.Since.IsZero() && e.Time.Before(r.o.Since) {
		return nil
	}
	return r.each(e)
}

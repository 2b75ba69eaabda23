package archive

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// Looking at a file takes the kernel longer than writing its entry, so the next
// ones of a directory are looked at by others meanwhile, some at a time.
const (
	aheadItems   = 16       // that one of them looks at
	aheadWorth   = 4        // fewer are not worth another goroutine
	aheadRuns    = 4        // of so many, at a time
	aheadContent = 96 << 10 // bytes of small files that are read with them
)

// looked is what is known of an item.
type looked struct {
	item    item
	place   int // of O_PATH; -1 when it is gone, or err
	st      unix.Stat_t
	err     error
	content *content // of a regular file with one name, or in a layer
}

// content is that of a regular file.
type content struct {
	file    int // open for reading; -1 when all was read
	records map[string]string
	data    []byte
	err     error
}

// look finds out what is behind a name.
func (p *packer) look(name string, dir stack, it item, s *scratch) looked {
	l := looked{item: it, place: -1}
	if (p.NoDevices || p.Still) && s != nil && it.kind == unix.DT_REG && p.direct(name, dir, it, s, &l) {
		return l
	}
	fd, err := openAsPlace(dir[it.layer], it.name, &l.st)
	if vanished(err) || err == nil && p.hidden(&l.st) {
		if err == nil {
			unix.Close(fd)
		}
		return l
	}
	if l.err = err; err != nil {
		return l
	}
	l.place = fd
	if s != nil && l.st.Mode&unix.S_IFMT == unix.S_IFREG && (l.st.Nlink < 2 || p.layer) && !p.virtual(fd, &l.st) {
		l.content = p.read(name+it.name, fd, &l.st, s)
	}
	return l
}

// direct is look without a look before the file is opened. It fails where that shows
// something else.
func (p *packer) direct(name string, dir stack, it item, s *scratch, l *looked) bool {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NOCTTY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOATIME
	fd, err := unix.Openat(dir[it.layer], it.name, flags, 0)
	if err != nil {
		return false
	}
	if err := unix.Fstat(fd, &l.st); err != nil || l.st.Mode&unix.S_IFMT != unix.S_IFREG || l.st.Nlink > 1 && !p.layer {
		unix.Close(fd)
		return false
	}
	l.content = p.readOpen(name+it.name, fd, &l.st, s)
	return true
}

func (l *looked) close() {
	if l.place >= 0 {
		unix.Close(l.place)
	}
	if l.content != nil && l.content.file >= 0 {
		unix.Close(l.content.file)
	}
}

// read opens a regular file, and reads it if it is small.
func (p *packer) read(name string, place int, st *unix.Stat_t, s *scratch) *content {
	fd, err := readPlace(place)
	if err != nil {
		return &content{file: -1, err: cannotRead(name, err)}
	}
	return p.readOpen(name, fd, st, s)
}

// readOpen is read for a file that is open.
func (p *packer) readOpen(name string, fd int, st *unix.Stat_t, s *scratch) *content {
	c := &content{file: fd}
	if c.records, c.err = p.records(name, c.file, s.xattrs); c.err != nil || s.free == nil || st.Size > int64(len(s.free)) || st.Blocks*512 < st.Size {
		return c
	}
	for c.data = s.free[:0:st.Size]; int64(len(c.data)) < st.Size; {
		n, err := unix.Pread(c.file, c.data[len(c.data):cap(c.data)], int64(len(c.data)))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			c.err = cannotRead(name, err)
		}
		if err != nil || n == 0 { // what it has lost meanwhile are zeros
			break
		}
		c.data = c.data[:len(c.data)+n]
	}
	s.free = s.free[len(c.data):]
	unix.Close(c.file)
	c.file = -1
	return c
}

// scratch are the buffers of one who looks.
type scratch struct {
	xattrs        []byte
	content, free []byte
}

var scratches = sync.Pool{New: func() any {
	return &scratch{xattrs: make([]byte, 64<<10), content: make([]byte, aheadContent)}
}}

// run is some items that are being looked at.
type run struct {
	done    chan struct{}
	items   []looked
	scratch *scratch
}

// lookahead are the runs of one directory, in their order.
type lookahead struct {
	p    *packer
	name string
	dir  stack
	runs []*run
}

// begin has the items looked at.
func (a *lookahead) begin(items []item) {
	r := &run{done: make(chan struct{}), items: make([]looked, len(items)), scratch: scratches.Get().(*scratch)}
	r.scratch.free = r.scratch.content
	for i, it := range items {
		r.items[i] = looked{item: it, place: -1}
	}
	a.runs = append(a.runs, r)
	go func() {
		defer close(r.done)
		for i := range r.items {
			r.items[i] = a.p.look(a.name, a.dir, r.items[i].item, r.scratch)
		}
	}()
}

// write writes the entries of the oldest run.
func (a *lookahead) write() error {
	r := a.runs[0]
	a.runs = a.runs[1:]
	<-r.done
	defer r.close()
	for i := range r.items {
		if err := a.p.entry(a.name, a.dir, &r.items[i]); err != nil {
			return err
		}
	}
	return nil
}

// drain writes all runs.
func (a *lookahead) drain() error {
	for len(a.runs) > 0 {
		if err := a.write(); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) close() {
	for i := range r.items {
		r.items[i].close()
	}
	scratches.Put(r.scratch)
}

// close waits for all who look, whose descriptors the directory's are.
func (a *lookahead) close() {
	for _, r := range a.runs {
		<-r.done
		r.close()
	}
}

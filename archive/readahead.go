package archive

import (
	"io"
	"sync"
)

const (
	aheadBlocks = 4
	aheadSize   = 256 << 10
)

var aheadBuffers = sync.Pool{New: func() any { return new([aheadSize]byte) }}

// ReadAhead reads r in a goroutine of its own, up to a megabyte ahead, so that
// what r has to compute and what its reader does with it take two cores.
// Close ends the goroutine, which may wait for a Read of r, and waits for it;
// r is not closed.
func ReadAhead(r io.Reader) io.ReadCloser {
	a := &ahead{full: make(chan block, aheadBlocks), stop: make(chan struct{}), ended: make(chan struct{})}
	go a.run(r)
	return a
}

type block struct {
	buf  *[aheadSize]byte
	data []byte
	err  error
}

type ahead struct {
	full        chan block
	stop, ended chan struct{}
	now         block // what is being read
	closed      bool
}

func (a *ahead) run(r io.Reader) {
	defer close(a.ended)
	for {
		b := block{buf: aheadBuffers.Get().(*[aheadSize]byte)}
		var n int
		n, b.err = io.ReadFull(r, b.buf[:])
		if b.err == io.ErrUnexpectedEOF && n > 0 {
			b.err = io.EOF
		}
		b.data = b.buf[:n]
		select {
		case a.full <- b:
		case <-a.stop:
			aheadBuffers.Put(b.buf)
			return
		}
		if b.err != nil {
			return
		}
	}
}

// next makes sure that there is something to read, or an error.
func (a *ahead) next() {
	for len(a.now.data) == 0 && a.now.err == nil {
		if a.now.buf != nil {
			aheadBuffers.Put(a.now.buf)
		}
		a.now = <-a.full
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	if a.next(); len(a.now.data) == 0 {
		return 0, a.now.err
	}
	n := copy(p, a.now.data)
	a.now.data = a.now.data[n:]
	return n, nil
}

// WriteTo passes the blocks on without a copy.
func (a *ahead) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if a.next(); len(a.now.data) == 0 {
			if a.now.err == io.EOF {
				return total, nil
			}
			return total, a.now.err
		}
		n, err := w.Write(a.now.data)
		total += int64(n)
		a.now.data = a.now.data[n:]
		if err != nil {
			return total, err
		}
	}
}

func (a *ahead) Close() error {
	if !a.closed {
		a.closed = true
		close(a.stop)
		<-a.ended
	}
	return nil
}

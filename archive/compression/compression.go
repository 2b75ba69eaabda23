// Package compression compresses and decompresses streams, and tells what one was
// compressed with. What comes in is hostile: no stream takes more memory, or
// becomes more bytes, than the bounds that are told here.
package compression

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/inflate"
)

// Kind is what a stream was compressed with.
type Kind string

// The compressions that Decompress tells apart.
const (
	Plain Kind = ""
	Gzip  Kind = "gzip"
	Zstd  Kind = "zstd"
	Bzip2 Kind = "bzip2"
	Xz    Kind = "xz"
)

// maxWindow bounds the memory in bytes that a zstd or xz stream may ask for.
const maxWindow = 128 << 20

var (
	magicGzip  = []byte{0x1f, 0x8b}
	magicZstd  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	magicSkip  = []byte{0x2a, 0x4d, 0x18} // zstd's skippable frame, after a first byte of 0x50 to 0x5f
	magicBzip2 = []byte("BZh")
)

// Decompress looks at the first bytes of r and returns the stream behind its
// compression. Close frees the decompressor, not r. An empty stream and a
// compression that is not supported are errors, and so is, later on, a stream
// that makes far more bytes than it has (see bounded). It may wait for another
// one to be closed, when both need much memory.
func Decompress(r io.Reader) (io.ReadCloser, Kind, error) {
	source := &counted{r: r}
	br := bufio.NewReaderSize(source, 1<<20)
	head, err := br.Peek(6)
	if len(head) == 0 {
		if errors.Is(err, io.EOF) {
			return nil, "", fault.New(fault.Invalid, "the archive is empty")
		}
		return nil, "", err
	}
	switch {
	case bytes.HasPrefix(head, magicGzip):
		z, err := inflate.NewReader(br)
		if err != nil {
			return nil, "", fault.New(fault.Invalid, "the archive's gzip compression is damaged: %w", err)
		}
		return &bounded{stream: z, source: source, how: Gzip}, Gzip, nil
	case bytes.HasPrefix(head, magicZstd), len(head) > 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], magicSkip):
		window := zstdWindow(br)
		if window > maxWindow {
			return nil, "", tooLarge(Zstd)
		}
		free := waitForMemory(window)
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			free()
			return nil, "", err
		}
		return &bounded{stream: &windowed{z.IOReadCloser(), free}, source: source, how: Zstd}, Zstd, nil
	case bytes.HasPrefix(head, magicBzip2):
		return &bounded{stream: io.NopCloser(bzip2.NewReader(br)), source: source, how: Bzip2}, Bzip2, nil
	case bytes.HasPrefix(head, magicXz):
		return &bounded{stream: newXz(br), source: source, how: Xz}, Xz, nil
	}
	return io.NopCloser(br), Plain, nil
}

// usualWindow is the largest window in bytes of what is compressed without asking
// for an extreme, RFC 8878, section 3.1.1.1.2. Streams with a larger one are
// decompressed one at a time: each keeps that much in memory.
const usualWindow = 8 << 20

var largeWindow = make(chan struct{}, 1)

// zstdWindow is the window in bytes that the first frame asks for.
func zstdWindow(br *bufio.Reader) uint64 {
	head, _ := br.Peek(zstd.HeaderMaxSize)
	var h zstd.Header
	if err := h.Decode(head); err != nil {
		return 0
	}
	return h.WindowSize
}

func tooLarge(how Kind) error {
	return fault.New(fault.Invalid, "the archive needs more than %d MiB of memory to be decompressed: compress it by %s with a smaller window", maxWindow>>20, how)
}

// waitForMemory waits until a stream may use as many bytes for its window. free
// gives them back, once.
func waitForMemory(window uint64) (free func()) {
	if window <= usualWindow {
		return func() {}
	}
	largeWindow <- struct{}{}
	return sync.OnceFunc(func() { <-largeWindow })
}

// windowed gives its window back at the end.
type windowed struct {
	io.ReadCloser
	free func()
}

func (w *windowed) Close() error {
	defer w.free()
	return w.ReadCloser.Close()
}

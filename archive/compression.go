package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/tarehq/tare/fault"
)

// Compression is what a stream was compressed with.
type Compression string

// The compressions that Decompress tells apart.
const (
	Plain Compression = ""
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
)

// maxWindow bounds the memory that a zstd stream may ask for.
const maxWindow = 128 << 20

var (
	magicGzip  = []byte{0x1f, 0x8b}
	magicZstd  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	magicSkip  = []byte{0x2a, 0x4d, 0x18} // zstd's skippable frame, after a first byte of 0x50 to 0x5f
	magicBzip2 = []byte("BZh")
	magicXz    = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
)

// Decompress looks at the first bytes of r and returns the stream behind its
// compression. Close frees the decompressor, not r. An empty stream and a
// compression that is not supported are errors, and so is, later on, a stream
// that makes far more bytes than it has (see bounded).
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
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
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, "", fault.New(fault.Invalid, "the archive's gzip compression is damaged: %w", err)
		}
		return &bounded{stream: z, source: source, how: Gzip}, Gzip, nil
	case bytes.HasPrefix(head, magicZstd), len(head) > 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], magicSkip):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, "", err
		}
		return &bounded{stream: z.IOReadCloser(), source: source, how: Zstd}, Zstd, nil
	case bytes.HasPrefix(head, magicBzip2):
		return &bounded{stream: io.NopCloser(bzip2.NewReader(br)), source: source, how: Bzip2}, Bzip2, nil
	case bytes.HasPrefix(head, magicXz):
		return nil, "", fault.New(fault.NotImplemented, "archives compressed with xz are not supported: decompress with xz -dc first")
	}
	return io.NopCloser(br), Plain, nil
}

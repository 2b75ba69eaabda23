package compression

import (
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"github.com/tarehq/tare/fault"
)

// The stream is cut into parts that are compressed beside each other. Their
// size and number are fixed, as the bytes depend on the size, and the memory on
// both: never on the machine.
const (
	gzipPart  = 1 << 20
	gzipParts = 4
	zstdParts = 4
)

// Parse reads the name of a compression that Compress knows:
// "gzip", "zstd", or "none".
func Parse(name string) (Kind, error) {
	switch name {
	case "gzip":
		return Gzip, nil
	case "zstd":
		return Zstd, nil
	case "none":
		return Plain, nil
	}
	return "", fault.New(fault.Invalid, "unknown compression %q: it is gzip, zstd or none", name)
}

// Compress returns a writer whose input goes compressed into w. Close
// completes the stream and does not close w. The level is 1 to 9 for gzip and 1
// to 22 for zstd, from fast to small; 0 is the usual one, 6 and 3. The same
// input and level give the same output, however it is cut into writes and
// however many processors there are; several are used.
func Compress(w io.Writer, c Kind, level int) (io.WriteCloser, error) {
	bad := func(max int) error {
		return fault.New(fault.Invalid, "there is no %s compression of level %d: levels are 1 to %d", c, level, max)
	}
	switch c {
	case Plain:
		if level != 0 {
			return nil, fault.New(fault.Invalid, "a compression level is given, and no compression")
		}
		return nopCloser{w}, nil
	case Gzip:
		if level < 0 || level > 9 {
			return nil, bad(9)
		}
		if level == 0 {
			level = 6
		}
		z, err := pgzip.NewWriterLevel(w, level)
		if err != nil {
			return nil, err
		}
		return z, z.SetConcurrency(gzipPart, gzipParts)
	case Zstd:
		if level < 0 || level > 22 {
			return nil, bad(22)
		}
		if level == 0 {
			level = 3
		}
		window := 2 << 20 // as zstd itself at level 3; a part is four windows
		if level >= 10 {
			window = 8 << 20
		}
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithWindowSize(window),
			zstd.WithEncoderConcurrency(zstdParts), zstd.WithConcurrentBlocks(true))
	}
	return nil, fault.New(fault.NotImplemented, "compressing with %s is not supported: use gzip or zstd", c)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

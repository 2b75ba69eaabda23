package compression

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"

	"github.com/mikelolasagasti/xz"
)

var magicXz = []byte{0xfd, '7', 'z', 'X', 'Z', 0}

// newXz reads .xz streams. A dictionary is allocated when a block asks for it,
// none larger than maxWindow.
func newXz(br *bufio.Reader) io.ReadCloser {
	free := waitForMemory(xzDictionary(br))
	z, _ := xz.NewReader(br, maxWindow) // what is wrong with the header, Read says too
	return &windowed{io.NopCloser(z), free}
}

// The sizes of https://tukaani.org/xz/xz-file-format.txt, sections 2.1.1 and
// 3.1.1.
const (
	xzStreamHeader = 12
	xzMaxBlock     = 1024
)

// xzDictionary is the dictionary's size in bytes that the first block asks for
// (sections 3.1 and 5.3.1 of the format); 0 of what has none.
func xzDictionary(br *bufio.Reader) uint64 {
	head, _ := br.Peek(xzStreamHeader + xzMaxBlock)
	if len(head) < xzStreamHeader+2 {
		return 0
	}
	head = head[xzStreamHeader:]
	head = head[:min(len(head), 4*(int(head[0])+1))]
	flags, rest := head[1], bytes.NewReader(head[2:])
	next := func() uint64 {
		n, _ := binary.ReadUvarint(rest)
		return n
	}
	for sizes := flags >> 6; sizes > 0; sizes &= sizes - 1 { // compressed, uncompressed
		next()
	}
	for range flags&3 + 1 {
		id, size := next(), next()
		properties := make([]byte, min(size, xzMaxBlock))
		if _, err := io.ReadFull(rest, properties); err != nil {
			return 0
		}
		if id == 0x21 && len(properties) == 1 { // LZMA2
			exponent := properties[0] & 0x3f
			return (2 | uint64(exponent&1)) << (exponent/2 + 11)
		}
	}
	return 0
}

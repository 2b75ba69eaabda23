package logs

import "encoding/binary"

// HeaderSize is the length of Header.
const HeaderSize = 8

// Header begins a chunk of n bytes in Docker's multiplexed stream: the stream
// (3 is for words of the daemon), three zero bytes, the length in 32 bits,
// big-endian.
func Header(s Stream, n int) (h [HeaderSize]byte) {
	h[0] = byte(s)
	binary.BigEndian.PutUint32(h[4:], uint32(n))
	return h
}

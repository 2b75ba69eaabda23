package build

import "testing"

// Single bytes are kept as one piece, and who comes late hears all of them; what cannot be
// is bounded.
func TestEchoKeepsBytesTogether(t *testing.T) {
	var e echo
	for range 10_000 {
		e.print(1, []byte("x"))
	}
	heard := 0
	e.follow(func(stream int, data []byte) { heard += len(data) })()
	if heard != 10_000 || len(e.said) != 1 {
		t.Errorf("%d bytes were heard, kept as %d pieces", heard, len(e.said))
	}
	for i := range maxEcho {
		e.print(1+i%2, []byte("x"))
	}
	if n := len(e.said); n > maxEcho/pieceSize {
		t.Errorf("%d pieces are kept", n)
	}
}

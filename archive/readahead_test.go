package archive

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestReadAhead(t *testing.T) {
	data := make([]byte, 3*aheadSize*aheadBlocks+17)
	for i := range data {
		data[i] = byte(i * 7)
	}
	broken := errors.New("broken")
	for name, read := range map[string]func(io.Reader) ([]byte, error){
		"Read": func(r io.Reader) ([]byte, error) {
			return io.ReadAll(struct{ io.Reader }{iotest.HalfReader(r)})
		},
		"WriteTo": func(r io.Reader) ([]byte, error) {
			var b bytes.Buffer
			_, err := io.Copy(&b, r)
			return b.Bytes(), err
		},
	} {
		a := ReadAhead(bytes.NewReader(data))
		if got, err := read(a); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		a.Close()
		a = ReadAhead(io.MultiReader(bytes.NewReader(data[:100]), iotest.ErrReader(broken)))
		if got, err := read(a); !errors.Is(err, broken) || !bytes.Equal(got, data[:100]) {
			t.Errorf("%s: %d bytes before the error %v", name, len(got), err)
		}
		a.Close()
	}
}

// Whoever reads no further is not waited for.
func TestReadAheadIsClosed(t *testing.T) {
	a := ReadAhead(zeroReader{})
	if _, err := a.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	a.Close()
	a.Close()
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { return len(p), nil }

package inflate

import (
	"bufio"
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"unsafe"

	"github.com/klauspost/compress/gzip"
)

// sources are ways in which the same bytes come.
var sources = map[string]func([]byte) io.Reader{
	"whole":  func(b []byte) io.Reader { return bytes.NewReader(b) },
	"bytes":  func(b []byte) io.Reader { return iotest.OneByteReader(bytes.NewReader(b)) },
	"halves": func(b []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(b)) },
	"early":  func(b []byte) io.Reader { return iotest.DataErrReader(bytes.NewReader(b)) },
	"odd":    func(b []byte) io.Reader { return odd{bytes.NewReader(b)} },
}

// odd gives 17 bytes at once: now and then there is enough for a turn of the
// fast loop.
type odd struct{ r io.Reader }

func (o odd) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 17)]) }

func gunzip(r io.Reader) ([]byte, error) {
	z, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return io.ReadAll(z)
}

// samples are bytes of several kinds, up to some windows of them.
func samples() map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 150_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	var text, runs, far bytes.Buffer
	for text.Len() < 200_000 {
		fmt.Fprintf(&text, "%d: the %x of %d\n", text.Len(), random.Uint32()>>20, random.Uint32()%100)
	}
	for runs.Len() < 200_000 { // matches of each short distance and length
		period := noise[random.IntN(1000):][:1+random.IntN(20)]
		runs.Write(bytes.Repeat(period, 1+random.IntN(300)/len(period)))
	}
	for far.Len() < 200_000 { // distances around the largest
		far.Write(noise[:32<<10-4+random.IntN(8)])
	}
	few := make([]byte, 150_000) // long codes: each byte half as often as the one before
	for i := range few {
		for few[i] < 40 && random.Uint32()&1 == 0 {
			few[i]++
		}
	}
	return map[string][]byte{
		"none": nil, "one": {'x'}, "word": []byte("hello, world\n"), "zeros": make([]byte, 300_000),
		"noise": noise, "text": text.Bytes(), "runs": runs.Bytes(), "far": far.Bytes(), "few": few,
	}
}

func TestRoundTrip(t *testing.T) {
	type compressor func(io.Writer, int) (io.WriteCloser, error)
	for by, compress := range map[string]compressor{
		"std":       func(w io.Writer, level int) (io.WriteCloser, error) { return stdgzip.NewWriterLevel(w, level) },
		"klauspost": func(w io.Writer, level int) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, level) },
	} {
		for name, data := range samples() {
			for level := stdgzip.HuffmanOnly; level <= 9; level++ {
				var packed bytes.Buffer
				w, err := compress(&packed, level)
				if err != nil {
					t.Fatal(err)
				}
				w.Write(data)
				w.Close()
				for how, source := range sources {
					got, err := gunzip(source(packed.Bytes()))
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s by %s -%d, read by %s: %d of %d bytes, %v", name, by, level, how, len(got), len(data), err)
					}
				}
			}
		}
	}
}

func TestWriteTo(t *testing.T) {
	data := samples()["text"]
	packed := pack(t, data)
	z, err := NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	begin := make([]byte, 1000)
	if _, err := io.ReadFull(z, begin); err != nil {
		t.Fatal(err)
	}
	var rest bytes.Buffer
	n, err := z.WriteTo(&rest)
	if err != nil || n != int64(rest.Len()) || !bytes.Equal(append(begin, rest.Bytes()...), data) {
		t.Errorf("%d of %d bytes, %v", n, len(data), err)
	}
}

func pack(t testing.TB, data []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := stdgzip.NewWriter(&packed)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// raw reads one stream of deflate, and tells how many bytes of the source it has.
func raw(r io.Reader) (out []byte, used int, err error) {
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	counted := &counter{r: r}
	b := bufio.NewReader(counted)
	d.source, d.in, d.pos, d.bits, d.n, d.end = b, nil, 0, 0, 0, 0
	d.begin()
	for err == nil {
		start := d.end
		err = d.decode()
		out = append(out, d.window[start:d.end]...)
		if !d.room() {
			d.slide()
		}
	}
	d.giveBack()
	if err == io.EOF {
		err = nil
	}
	return out, counted.n - b.Buffered() + d.pos, err
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// reason makes errors of the two libraries comparable.
func reason(err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.As(err, &corrupt):
		return ErrCorrupt
	case errors.Is(err, stdgzip.ErrHeader):
		return ErrHeader
	case errors.Is(err, stdgzip.ErrChecksum):
		return ErrChecksum
	}
	return err
}

// agree reads the stream by Go's library, and by this one however what is behind
// its beginning comes.
func agree(t *testing.T, beginning, data []byte) (stdErr error) {
	t.Helper()
	source := bytes.NewReader(append(beginning[:len(beginning):len(beginning)], data...))
	want, wantErr := io.ReadAll(flate.NewReader(source))
	for _, how := range []string{"whole", "bytes", "odd"} {
		got, used, err := raw(io.MultiReader(bytes.NewReader(beginning), sources[how](data)))
		switch {
		case err != reason(wantErr):
			t.Errorf("%x by %s: %v, want %v", clip(data), how, err, wantErr)
		case !bytes.Equal(got, want):
			t.Errorf("%x by %s: %x, want %x (%v)", clip(data), how, clip(got), clip(want), err)
		case err == nil && used != len(beginning)+len(data)-source.Len():
			t.Errorf("%x by %s: %d bytes used, want %d", clip(data), how, used, len(beginning)+len(data)-source.Len())
		}
	}
	return wantErr
}

func clip(b []byte) []byte { return b[:min(len(b), 200)] }

// Streams of deflate that an encoder does not make, and what they are.
var streams = []struct {
	name, hex, want string
	err             error
}{
	{"nothing", "", "", io.ErrUnexpectedEOF},
	{"fixed, empty", "0300", "", nil},
	{"fixed, a", "4b0400", "a", nil},
	{"fixed, and bytes behind", "4b0400ffff", "a", nil},
	{"fixed, the end is missing", "4b04", "a", io.ErrUnexpectedEOF},
	{"fixed, a match of one distance", "4b4c840100", "aaaaaaaaaa", nil},
	{"fixed, length 286", "4b1c03", "a", ErrCorrupt},
	{"fixed, distance 30", "4b043e", "a", ErrCorrupt},
	{"fixed, one byte before the beginning", "4b044200", "a", ErrCorrupt},
	{"fixed, the largest distance", "4b04deff0f00", "a", ErrCorrupt},
	{"stored", "010300fcff616263", "abc", nil},
	{"stored, nothing", "010000ffff", "", nil},
	{"stored, two blocks", "000100feff61010100feff62", "ab", nil},
	{"stored, lengths that differ", "010300fdff616263", "", ErrCorrupt},
	{"stored, short", "010300fcff6162", "ab", io.ErrUnexpectedEOF},
	{"a block of no type", "07", "", ErrCorrupt},
	{"dynamic, cut in the header", "05", "", io.ErrUnexpectedEOF},
	{"dynamic, 287 codes", "f5000000", "", ErrCorrupt},
	{"dynamic, 31 distances", "05de0000", "", ErrCorrupt},
	{"dynamic, over-subscribed code of lengths", "05e0ffffffffffffffff", "", ErrCorrupt},
	{"dynamic, no code of lengths", "0500000000000000", "", ErrCorrupt},
	{"dynamic, a repetition of nothing", "05e0870c00000000201c7f", "", ErrCorrupt},
	{"dynamic, a repetition beyond the last code", "05e0870c0000000020f8fb03", "", ErrCorrupt},
	{"dynamic, nothing but the end", "05e0870c0000000020f85b37", "", nil},
	{"dynamic, the bit that is not the end", "05e0870c0000000020f85bb7", "", ErrCorrupt},
	{"dynamic, bits without a symbol", "05e0810c0000008030f85b3700", "", ErrCorrupt},
	{"dynamic, bits with two symbols", "0de0870c0000000020f8535703", "", ErrCorrupt},
	{"dynamic, no end", "05e0870c0000000020943ff500", "\x00\x00\x00\x00\x00\x00\x00", io.ErrUnexpectedEOF},
	{"dynamic, one distance", "0de0810c0000008030b0de5fa26e01", "aaaa", nil},
	{"dynamic, the bit that is not the one distance", "0de0810c0000008030b0de5fa2ee01", "a", ErrCorrupt},
	{"dynamic, a match without distances", "0de0810c0000008030b0de5fa2e601", "a", ErrCorrupt},
}

func TestStreams(t *testing.T) {
	for _, s := range streams {
		t.Run(s.name, func(t *testing.T) {
			data, err := hex.DecodeString(s.hex)
			if err != nil {
				t.Fatal(err)
			}
			for how, source := range sources {
				if got, _, err := raw(source(data)); string(got) != s.want || err != s.err {
					t.Errorf("by %s: %q, %v", how, got, err)
				}
			}
			agree(t, nil, data)
		})
	}
}

// Every beginning of a stream, and it with every bit turned, is read as Go's
// library reads it.
func TestDamaged(t *testing.T) {
	kinds := map[error]int{}
	for name, data := range samples() {
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, flate.BestSpeed, flate.BestCompression} {
			var packed bytes.Buffer
			w, _ := flate.NewWriter(&packed, level)
			w.Write(data[:min(len(data), 200)])
			w.Close()
			whole := packed.Bytes()
			for i := range whole {
				kinds[reason(agree(t, nil, whole[:i]))]++
				for bit := range 8 {
					damaged := bytes.Clone(whole)
					damaged[i] ^= 1 << bit
					kinds[reason(agree(t, nil, damaged))]++
				}
				if t.Failed() {
					t.Fatalf("%s, level %d, byte %d", name, level, i)
				}
			}
		}
	}
	for _, err := range []error{nil, io.ErrUnexpectedEOF, ErrCorrupt} {
		if kinds[err] == 0 {
			t.Errorf("nothing ended with %v", err)
		}
	}
}

// FuzzInflate: the same bytes and the same errors as Go's library, wherever in
// the window the stream lies.
func FuzzInflate(f *testing.F) {
	for _, s := range streams {
		data, _ := hex.DecodeString(s.hex)
		f.Add(data, uint32(0))
	}
	for _, data := range samples() {
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, 1, 6, 9} {
			var packed bytes.Buffer
			w, _ := flate.NewWriter(&packed, level)
			w.Write(data[:min(len(data), 3000)])
			w.Close()
			f.Add(packed.Bytes(), uint32(history-1))
			f.Add(packed.Bytes(), uint32(history+fresh-packed.Len()))
		}
	}
	before := samples()["noise"]
	f.Fuzz(func(t *testing.T, data []byte, skip uint32) {
		agree(t, stored(before[:skip%uint32(len(before))]), data)
	})
}

// stored makes blocks without compression, none of them the last.
func stored(data []byte) (blocks []byte) {
	for len(data) > 0 {
		n := uint16(min(len(data), 1<<16-1))
		blocks = append(le.AppendUint16(le.AppendUint16(append(blocks, 0), n), ^n), data[:n]...)
		data = data[n:]
	}
	return blocks
}

// What another stream left in the window is out of reach.
func TestPoolIsClean(t *testing.T) {
	secret := pack(t, bytes.Repeat([]byte("secret"), 100_000))
	if _, err := gunzip(bytes.NewReader(secret)); err != nil {
		t.Fatal(err)
	}
	back, _ := hex.DecodeString("1f8b08000000000000ff" + "4b044200" + "0000000000000000") // a, then from before it
	for _, data := range [][]byte{back, append(pack(t, []byte("secret")), back...)} {
		got, err := gunzip(bytes.NewReader(data))
		if err != ErrCorrupt || strings.Contains(strings.TrimPrefix(string(got), "secret"), "s") {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestSize(t *testing.T) {
	if size := unsafe.Sizeof(decoder{}); size > 200<<10 {
		t.Errorf("a reader takes %d bytes", size)
	}
}

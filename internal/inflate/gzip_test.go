package inflate

import (
	"bufio"
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// agreeGzip is agree for whole files.
func agreeGzip(t *testing.T, name string, data []byte) (stdErr error) {
	t.Helper()
	var want []byte
	std, stdErr := stdgzip.NewReader(bytes.NewReader(data))
	if stdErr == nil {
		want, stdErr = io.ReadAll(std)
	}
	for _, how := range []string{"whole", "bytes", "odd"} {
		got, err := gunzip(sources[how](data))
		if err != reason(stdErr) || !bytes.Equal(got, want) {
			t.Errorf("%s by %s: %q, %v, want %q, %v", name, how, clip(got), err, clip(want), stdErr)
		}
	}
	return stdErr
}

// files are gzip files of every form, and what compress/gzip says of them.
func files(t testing.TB) map[string][]byte {
	var full bytes.Buffer
	w := stdgzip.NewWriter(&full)
	w.Name, w.Comment, w.Extra = "a name: \u00e4", "a comment", bytes.Repeat([]byte("extra"), 1000)
	w.Write([]byte("the content"))
	w.Close()

	one, two := pack(t, []byte("one")), pack(t, []byte("two"))
	header := func(flags byte, rest string) []byte {
		return append([]byte{0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3}, rest...)
	}
	withCRC := header(flagHeaderCRC, "")
	withCRC = le.AppendUint16(withCRC, uint16(crc32.ChecksumIEEE(withCRC)))
	badSum, badSize := bytes.Clone(one), bytes.Clone(one)
	badSum[len(one)-8]++
	badSize[len(one)-4]++
	return map[string][]byte{
		"all fields":          full.Bytes(),
		"two members":         append(bytes.Clone(one), two...),
		"member of nothing":   append(pack(t, nil), two...),
		"header checksum":     append(withCRC, one[10:]...),
		"bad header checksum": append(header(flagHeaderCRC, "xx"), one[10:]...),
		"reserved flag":       append(header(1<<5, ""), one[10:]...),
		"text flag":           append(header(1, ""), one[10:]...),
		"no magic":            append([]byte("PK"), one[2:]...),
		"no deflate":          append([]byte{0x1f, 0x8b, 7}, one[3:]...),
		"longest name":        append(header(flagName, strings.Repeat("n", 511)+"\x00"), one[10:]...),
		"name too long":       append(header(flagName, strings.Repeat("n", 512)+"\x00"), one[10:]...),
		"bad checksum":        badSum,
		"bad size":            badSize,
		"zeros behind":        append(bytes.Clone(one), make([]byte, 512)...),
		"one zero behind":     append(bytes.Clone(one), 0),
		"garbage behind":      append(bytes.Clone(one), "some garbage"...),
		"nothing":             nil,
	}
}

func TestFiles(t *testing.T) {
	for name, data := range files(t) {
		agreeGzip(t, name, data)
		if len(data) < 600 {
			for i := range data {
				agreeGzip(t, name+", cut", data[:i])
			}
		}
	}
}

// FuzzGunzip: files are read as Go's library reads them. When mend is set, the
// first member's checksum and size are made right.
func FuzzGunzip(f *testing.F) {
	for _, data := range files(f) {
		f.Add(data, false)
		f.Add(data, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, mend bool) {
		if mend && len(data) > 10 {
			data = mended(data)
		}
		agreeGzip(t, "fuzz", data)
	})
}

// mended sets the checksum and the size behind a stream that is whole.
func mended(data []byte) []byte {
	r := bytes.NewReader(data[10:])
	content, err := io.ReadAll(flate.NewReader(r))
	if err != nil {
		return data
	}
	rest := data[len(data)-r.Len():]
	fixed := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3}, data[10:len(data)-len(rest)]...)
	fixed = le.AppendUint32(le.AppendUint32(fixed, crc32.ChecksumIEEE(content)), uint32(len(content)))
	return append(fixed, rest[min(8, len(rest)):]...)
}

// Why the source failed is told as that, wherever it does, and also when it
// looks like an end.
func TestSourceFails(t *testing.T) {
	data := append(pack(t, []byte("the first member")), pack(t, []byte("and the second"))...)
	for _, broken := range []error{errors.New("the connection broke"), io.ErrUnexpectedEOF} {
		for i := range len(data) + 1 {
			_, err := gunzip(io.MultiReader(bytes.NewReader(data[:i]), iotest.ErrReader(broken)))
			if err != broken {
				t.Errorf("broken after %d bytes: %v", i, err)
			}
		}
	}
}

// What was whole before the source failed is handed out first.
func TestHandsOutBeforeError(t *testing.T) {
	data := samples()["text"]
	packed := pack(t, data)
	got, err := gunzip(bytes.NewReader(packed[:len(packed)-1]))
	if err != io.ErrUnexpectedEOF || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
	}
}

// A bufio.Reader is not read beyond what turned out to be none of the stream.
func TestLeavesTheRest(t *testing.T) {
	r := bufio.NewReaderSize(bytes.NewReader(append(pack(t, []byte("one")), "0123456789 the rest"...)), 64<<10)
	if got, err := gunzip(r); string(got) != "one" || err != ErrHeader {
		t.Fatalf("%q, %v", got, err)
	}
	if rest, err := io.ReadAll(r); string(rest) != " the rest" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestClosed(t *testing.T) {
	z, err := NewReader(bytes.NewReader(pack(t, []byte("content"))))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := z.Close(); err != nil {
			t.Error(err)
		}
	}
	if n, err := z.Read(make([]byte, 1)); n != 0 || err != errClosed {
		t.Errorf("%d, %v", n, err)
	}
}

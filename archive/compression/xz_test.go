package compression

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/tarehq/tare/fault"
)

// What the real xz makes is read, with each of its filters and checks, in one
// block or many, and as streams behind each other.
func TestXz(t *testing.T) {
	data := wordy(600_000)
	for _, options := range []string{"-0", "-6", "-T2 --block-size=100KiB", "--check=none", "--check=crc32", "--check=sha256",
		"--x86 --lzma2", "--arm --delta=dist=4 --lzma2=dict=4KiB"} {
		packed := filtered(t, data, append([]string{"xz", "-c"}, strings.Fields(options)...)...)
		for name, stream := range map[string][]byte{"one": withDictionary(packed, 29), "two": append(append(bytes.Clone(packed), 0, 0, 0, 0), packed...)} {
			r, found, err := Decompress(bytes.NewReader(stream))
			must(t, err)
			back, err := io.ReadAll(r)
			must(t, r.Close())
			want := bytes.Repeat(data, len(stream)/len(packed))
			if found != Xz || err != nil || !bytes.Equal(back, want) {
				t.Errorf("%s, %s: %s, %d of %d bytes, %v", options, name, found, len(back), len(want), err)
			}
		}
	}
}

// withDictionary gives the stream's first block another dictionary: 28 is 64
// MiB, 29 is 96 MiB, 40 is 4 GiB. A larger one than it was made with will do.
func withDictionary(stream []byte, size byte) []byte {
	stream = bytes.Clone(stream)
	block := stream[xzStreamHeader:]
	end := 4 * int(block[0])
	at := bytes.Index(block[:end], []byte{0x21, 1}) // LZMA2, one byte of properties
	block[at+2] = size
	binary.LittleEndian.PutUint32(block[end:], crc32.ChecksumIEEE(block[:end]))
	return stream
}

// What asks for more memory than there may be is told so, in a later stream
// too, and gets none.
func TestXzDictionary(t *testing.T) {
	packed := filtered(t, wordy(1000), "xz", "-c", "-0")
	for name, stream := range map[string][]byte{"first": withDictionary(packed, 40), "second": append(bytes.Clone(packed), withDictionary(packed, 40)...)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decompressed(stream)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "needs more than 128 MiB of memory") {
			t.Errorf("%s: %v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
			t.Errorf("%s: it took %d bytes", name, took)
		}
	}
}

// The dictionary is found behind all that a block's header may have.
func TestXzDictionaryIsFound(t *testing.T) {
	for options, want := range map[string]uint64{"-0": 256 << 10, "-6": 8 << 20, "--x86 --delta=dist=2 --lzma2=dict=12MiB": 12 << 20,
		"-6 -T2 --block-size=1KiB": 8 << 20} {
		packed := filtered(t, wordy(5000), append([]string{"xz", "-c"}, strings.Fields(options)...)...)
		if got := xzDictionary(buffered(packed)); got != want {
			t.Errorf("%s: %d instead of %d", options, got, want)
		}
		if got := xzDictionary(buffered(withDictionary(packed, 29))); got != 96<<20 {
			t.Errorf("%s with another dictionary: %d", options, got)
		}
	}
	whole := filtered(t, wordy(50), "xz", "-c")
	for size := range whole {
		xzDictionary(buffered(whole[:size])) // does not panic
	}
	if got := xzDictionary(buffered(filtered(t, nil, "xz", "-c"))); got != 0 {
		t.Errorf("a stream without blocks has a dictionary of %d bytes", got)
	}
}

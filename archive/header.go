package archive

import (
	"bufio"
	"encoding/binary"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

const tarBlock = 512

// The kinds of entries, POSIX pax(1).
const (
	kindFile     = '0'
	kindLink     = '1'
	kindSymlink  = '2'
	kindChar     = '3'
	kindBlock    = '4'
	kindDir      = '5'
	kindFifo     = '6'
	kindExtended = 'x'
)

// header is one entry as it is written.
type header struct {
	name, link   string
	kind         byte
	mode         uint32
	uid, gid     uint32
	size         int64
	modified     time.Time
	major, minor uint32
	records      map[string]string // further PAX records
}

// tarWriter writes a tar stream of the ustar format, with PAX records for what
// does not fit into it (POSIX pax(1), "pax Interchange Format"). It writes the
// same bytes for the same entries for ever: digests of layers rest on it, which
// is why archive/tar, whose output may change with a release, is not used.
type tarWriter struct {
	w    *bufio.Writer
	left int64 // bytes of data that the present entry has yet to get
	pad  int64 // zeros that follow them
}

func newTarWriter(w io.Writer) *tarWriter { return &tarWriter{w: bufio.NewWriterSize(w, 256<<10)} }

var zeroBlocks [64 << 10]byte

// writeZeros writes n zeros.
func writeZeros(w io.Writer, n int64) error {
	for n > 0 {
		k, err := w.Write(zeroBlocks[:min(n, int64(len(zeroBlocks)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// Write gives the present entry its data.
func (t *tarWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > t.left {
		return 0, io.ErrShortWrite
	}
	n, err := t.w.Write(p)
	t.left -= int64(n)
	return n, err
}

// content has give see to the data of the present entry, all before which is flushed.
// It writes them and calls flushed, or has put them below itself.
func (t *tarWriter) content(give func(flushed func() error) error) error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	wrote := false
	err := give(func() error {
		wrote = true
		return t.w.Flush()
	})
	if !wrote {
		t.left = 0
	}
	return err
}

// finish completes the present entry: what was not written are zeros.
func (t *tarWriter) finish() error {
	err := writeZeros(t.w, t.left+t.pad)
	t.left, t.pad = 0, 0
	return err
}

// close ends the archive; the stream below stays open.
func (t *tarWriter) close() error {
	if err := t.finish(); err != nil {
		return err
	}
	if err := writeZeros(t.w, 2*tarBlock); err != nil {
		return err
	}
	return t.w.Flush()
}

// begin writes the header of an entry, whose data follows.
func (t *tarWriter) begin(h header) error {
	if err := t.finish(); err != nil {
		return err
	}
	var block [tarBlock]byte
	if records := h.encode(&block); len(records) > 0 {
		body := encodeRecords(records)
		x := header{name: path.Join(ascii(path.Dir(h.name), 60), "PaxHeaders.0", ascii(path.Base(h.name), 60)), kind: kindExtended, mode: 0o644, size: int64(len(body))}
		if len(x.name) > 100 {
			x.name = x.name[:100]
		}
		var extended [tarBlock]byte
		x.encode(&extended)
		if _, err := t.w.Write(extended[:]); err != nil {
			return err
		}
		if _, err := io.WriteString(t.w, body); err != nil {
			return err
		}
		if err := writeZeros(t.w, padding(int64(len(body)))); err != nil {
			return err
		}
	}
	if _, err := t.w.Write(block[:]); err != nil {
		return err
	}
	t.left, t.pad = h.size, padding(h.size)
	return nil
}

func padding(size int64) int64 { return -size & (tarBlock - 1) }

// encode makes the ustar block, and the records for what it cannot hold.
// The block is zeros.
func (h *header) encode(block *[tarBlock]byte) (records map[string]string) {
	record := func(k, v string) {
		if records == nil {
			records = make(map[string]string, len(h.records)+1)
		}
		records[k] = v
	}
	for k, v := range h.records {
		record(k, v)
	}
	if prefix, name, ok := splitName(h.name); ok {
		copy(block[0:100], name)
		copy(block[345:500], prefix)
	} else {
		record("path", h.name)
		copy(block[0:100], ascii(h.name, 100))
	}
	if len(h.link) > 100 || !isASCII(h.link) {
		record("linkpath", h.link)
	}
	copy(block[157:257], ascii(h.link, 100))
	seconds := h.modified.Unix()
	if h.modified.IsZero() {
		seconds = 0
	}
	number := func(field []byte, v int64, key string) {
		if !octal(field, v) {
			octal(field, 0)
			record(key, strconv.FormatInt(v, 10))
		}
	}
	number(block[100:108], int64(h.mode), "")
	number(block[108:116], int64(h.uid), "uid")
	number(block[116:124], int64(h.gid), "gid")
	number(block[124:136], h.size, "size")
	number(block[136:148], seconds, "mtime")
	if h.modified.Nanosecond() != 0 && !h.modified.IsZero() {
		record("mtime", stampOf(h.modified))
	}
	block[156] = h.kind
	copy(block[257:265], "ustar\x0000")
	octal(block[329:337], int64(h.major))
	octal(block[337:345], int64(h.minor))
	copy(block[148:156], "        ")
	octal(block[148:155], checksum(block)) // six digits, a zero byte, and the blank that is there
	return records
}

// checksum is the sum of a block's bytes, of which it adds four at a time.
func checksum(block *[tarBlock]byte) int64 {
	const every = 0x00ff00ff00ff00ff
	var sum uint64 // four sums of 16 bits: 128 bytes each
	for i := 0; i < tarBlock; i += 8 {
		word := binary.LittleEndian.Uint64(block[i:])
		sum += word&every + word>>8&every
	}
	return int64(sum&0xffff + sum>>16&0xffff + sum>>32&0xffff + sum>>48)
}

// octal writes v in octal digits before a zero byte, if it fits.
func octal(field []byte, v int64) bool {
	digits := len(field) - 1
	if v < 0 || v >= 1<<(3*digits) {
		return false
	}
	for i := digits - 1; i >= 0; i-- {
		field[i] = '0' + byte(v&7)
		v >>= 3
	}
	field[digits] = 0
	return true
}

// stampOf writes seconds since 1970 with their fraction in the fewest digits.
func stampOf(t time.Time) string {
	sec, nsec := t.Unix(), int64(t.Nanosecond())
	sign := ""
	if sec < 0 { // -1.75 is two seconds before 1970 and a quarter after that
		sign, sec, nsec = "-", -sec-1, 1e9-nsec
	}
	fraction := strconv.FormatInt(1e9+nsec, 10)[1:]
	return sign + strconv.FormatInt(sec, 10) + "." + strings.TrimRight(fraction, "0")
}

// splitName cuts a name into the two fields of ustar.
func splitName(name string) (prefix, rest string, ok bool) {
	if !isASCII(name) || len(name) > 256 {
		return "", "", false
	}
	if len(name) <= 100 {
		return "", name, true
	}
	at := strings.LastIndexByte(strings.TrimSuffix(name[:min(len(name), 156)], "/"), '/')
	if at <= 0 || len(name)-at-1 > 100 {
		return "", "", false
	}
	return name[:at], name[at+1:], true
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 || s[i] == 0 {
			return false
		}
	}
	return true
}

// ascii is what an old reader gets of a text that does not fit.
func ascii(s string, max int) string {
	if len(s) <= max && isASCII(s) {
		return s
	}
	b := make([]byte, 0, min(len(s), max))
	for i := 0; i < len(s) && len(b) < max; i++ {
		if s[i] < 0x80 && s[i] != 0 {
			b = append(b, s[i])
		}
	}
	return string(b)
}

// encodeRecords writes "length key=value\n" for each record in the order of
// the keys, the length counting its own digits.
func encodeRecords(records map[string]string) string {
	keys := make([]string, 0, len(records))
	for k := range records {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b strings.Builder
	for _, k := range keys {
		size := len(k) + len(records[k]) + 3 // blank, equals sign, newline
		size += len(strconv.Itoa(size))
		if n := len(k) + len(records[k]) + 3 + len(strconv.Itoa(size)); n != size {
			size = n
		}
		b.WriteString(strconv.Itoa(size) + " " + k + "=" + records[k] + "\n")
	}
	return b.String()
}

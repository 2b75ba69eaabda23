package archive

import (
	"errors"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// manyHoles is how many bytes of holes make a file worth the sparse format.
// Below that the holes are written as zeros, which all readers know: the OCI
// layer specification says that sparse files should not be used, and Docker's
// graph drivers cannot save or push again a layer that has one.
const manyHoles = 8 << 30

// someHoles is manyHoles for an archive that is no layer.
const someHoles = 64 << 10

// maxPieces bounds the map of a sparse file. One of more pieces is written with
// zeros.
const maxPieces = 10_000

// piece is a part of a file that has data.
type piece struct{ offset, size int64 }

// dataOf asks the file system where the data of a file lies (lseek(2),
// SEEK_DATA).
func dataOf(fd int, size int64) ([]piece, error) {
	var pieces []piece
	for at := int64(0); at < size; {
		begin, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // a hole up to the end
			break
		}
		if errors.Is(err, unix.EINVAL) || len(pieces) == maxPieces { // not known, or too much to know
			return append(pieces, piece{at, size - at}), nil
		}
		if err != nil {
			return nil, err
		}
		end, err := unix.Seek(fd, begin, unix.SEEK_HOLE)
		if err != nil || end <= begin {
			return append(pieces, piece{begin, max(size-begin, 0)}), nil
		}
		begin, end = min(begin, size), min(end, size)
		if begin == end {
			break
		}
		pieces = append(pieces, piece{begin, end - begin})
		at = end
	}
	return pieces, nil
}

// sparseMap writes the map of a file that is to be stored as a sparse one: the
// number of its pieces, and of each the offset and the size, a line each, filled
// up to whole blocks ("Storing Sparse Files" in GNU tar's manual, PAX format
// 1.0). "" for files with fewer bytes of holes than the least.
func sparseMap(pieces []piece, size, least int64) string {
	data := int64(0)
	for _, d := range pieces {
		data += d.size
	}
	if size-data < least || len(pieces) > maxPieces {
		return ""
	}
	if n := len(pieces); n == 0 || pieces[n-1].offset+pieces[n-1].size < size {
		pieces = append(pieces[:n:n], piece{size, 0})
	}
	var b strings.Builder
	b.WriteString(strconv.Itoa(len(pieces)) + "\n")
	for _, d := range pieces {
		b.WriteString(strconv.FormatInt(d.offset, 10) + "\n" + strconv.FormatInt(d.size, 10) + "\n")
	}
	b.WriteString(strings.Repeat("\x00", int(padding(int64(b.Len())))))
	return b.String()
}

// sparse writes a file as its map and its pieces.
func (p *packer) sparse(h header, f int, st *unix.Stat_t, pieces []piece, mapping string) error {
	records := map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": h.name, "GNU.sparse.realsize": strconv.FormatInt(h.size, 10),
	}
	for k, v := range h.records {
		records[k] = v
	}
	h.records = records
	h.name = path.Join(path.Dir(h.name), "GNUSparseFile.0", path.Base(h.name))
	h.size = int64(len(mapping))
	for _, d := range pieces {
		h.size += d.size
	}
	if p.holes -= st.Size - h.size; p.layer && p.holes < 0 {
		return fault.New(fault.Invalid, "the file %q makes the holes of the sparse files more than the %d GiB that a layer may have: remove it, or keep it in a volume", "/"+shorten(records["GNU.sparse.name"]), maxHoles>>30)
	}
	if err := p.begin(h, st); err != nil {
		return err
	}
	if _, err := p.tar.Write([]byte(mapping)); err != nil {
		return err
	}
	for _, d := range pieces {
		if err := p.copy(f, h.name, d); err != nil {
			return err
		}
	}
	return p.tar.finish()
}

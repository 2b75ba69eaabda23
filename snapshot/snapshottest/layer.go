package snapshottest

import (
	"archive/tar"
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/snapshot"
)

// Entry is an entry of a layer's archive.
type Entry struct {
	Header tar.Header
	Data   string
}

// longAgo is when all entries were changed that say nothing else.
var longAgo = time.Unix(1_000_000_000, 123_456_789)

// Dir, File, Link and Symlink make the usual entries.
func Dir(name string) Entry {
	return Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}}
}
func File(name, data string) Entry {
	return Entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, data}
}
func Link(name, target string) Entry {
	return Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target, Mode: 0o644}}
}
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}}
}

// Owned gives an entry to an owner, with a mode.
func (e Entry) Owned(uid, gid int, mode int64) Entry {
	e.Header.Uid, e.Header.Gid, e.Header.Mode = uid, gid, mode
	return e
}

// With adds an extended attribute.
func (e Entry) With(name, value string) Entry {
	e.Header.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
	return e
}

// Pack writes the archive.
func Pack(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Size, h.Format = int64(len(e.Data)), tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = longAgo
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.Data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Unpack makes a layer of the entries on top of the chain parent and returns
// its chain ID.
func Unpack(t testing.TB, s *snapshot.Store, parent digest.Digest, entries ...Entry) digest.Digest {
	t.Helper()
	data := Pack(t, entries...)
	chain, err := s.Unpack(context.Background(), parent, digest.FromBytes(data), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

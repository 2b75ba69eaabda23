package snapshottest

import (
	"archive/tar"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/snapshot"
)

// Case is a series of layers, the lowest first, and what they make: the lines
// of Tree by path.
type Case struct {
	Name   string
	Layers [][]Entry
	Want   map[string]string
}

// Unpack unpacks the layers and returns the topmost's chain ID.
func (c Case) Unpack(t testing.TB, s *snapshot.Store) digest.Digest {
	t.Helper()
	var chain digest.Digest
	for _, entries := range c.Layers {
		chain = Unpack(t, s, chain, entries...)
	}
	return chain
}

const (
	old        = " 2001-09-09T01:46:40.123456789Z"
	capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	capHex     = " security.capability=0100000200200000000000000000000000000000"
	acl        = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
	aclHex     = "02000000" + "01000600ffffffff" + "02000400e8030000" + "04000400ffffffff" + "10000400ffffffff" + "20000000ffffffff"
	one        = " 1 6b86b273ff34"
	two        = " 1 d4735e3a265e"
	empty      = " 0 e3b0c44298fc"
	dirLine    = "40755 0:0" + old
	oneLine    = "100644 0:0" + one + old
	twoLine    = "100644 0:0" + two + old
)

func device(name string, kind byte, major, minor int64) Entry {
	return Entry{Header: tar.Header{Name: name, Typeflag: kind, Mode: 0o660, Devmajor: major, Devminor: minor}}
}

// Cases are what layers may do to each other.
var Cases = []Case{
	{"everything", [][]Entry{
		{Dir("./"), Dir("d").Owned(7, 3_000_000_000, 0o1777), File("d/su", "1").Owned(0, 8, 0o6755), File("cap", "1").With("security.capability", capability),
			File("acl", "1").Owned(0, 0, 0o640).With("system.posix_acl_access", acl), File("x", "1").With("user.note", "\x00\x01"), Symlink("l", "/d/su").Owned(4, 5, 0o777), Link("h", "d/su").Owned(0, 8, 0o6755),
			device("null", tar.TypeChar, 1, 3), device("sda", tar.TypeBlock, 8, 0), device("pipe", tar.TypeFifo, 0, 0), File("empty", "")},
		{File("other", "1")},
	}, map[string]string{
		"d": "41777 7:3000000000" + old, "d/su": "106755 0:8" + one + old, "cap": "100644 0:0" + one + old + capHex,
		"acl": "100640 0:0" + one + old + " system.posix_acl_access=" + aclHex, "x": oneLine + " user.note=0001",
		"l": "120777 4:5 -> /d/su" + old, "h": "106755 0:8" + one + " = d/su" + old, "null": "20660 0:0 1:3" + old, "sda": "60660 0:0 8:0" + old,
		"pipe": "10660 0:0" + old, "empty": "100644 0:0" + empty + old, "other": oneLine,
	}},
	{"whiteouts", [][]Entry{
		{Dir("./"), File("a", "1"), Dir("d"), File("d/x", "1"), File("d/y", "1"), Dir("gone"), File("gone/deep", "1"), Symlink("l", "d"), File("again", "1")},
		{Dir("./"), File(".wh.a", ""), Dir("d"), File("d/.wh.x", ""), File(".wh.gone", ""), File(".wh.l", ""), File(".wh.never", ""), File("again", "2"), File(".wh.again", ""), File("new", "1"), File(".wh.new", "")},
	}, map[string]string{"d": dirLine, "d/y": oneLine}},
	{"hidden and made again", [][]Entry{
		{Dir("./"), Dir("d").Owned(9, 9, 0o700), File("d/x", "1"), Dir("e"), File("e/x", "1"), File("f", "1"), Dir("g"), File("g/x", "1")},
		{Dir("./"), File(".wh.d", ""), Dir("d"), File("d/y", "2"), File(".wh.e", ""), File("e/s/y", "2"), File(".wh.f", ""), Dir("f"), File(".wh.g", ""), File("g", "2")},
	}, map[string]string{"d": dirLine, "d/y": twoLine, "e": "40755 0:0", "e/s": "40755 0:0", "e/s/y": twoLine, "f": dirLine, "g": twoLine}},
	{"opaque directories", [][]Entry{
		{Dir("./"), Dir("d").Owned(1, 1, 0o700), File("d/x", "1"), Dir("d/s").Owned(2, 2, 0o700), File("d/s/x", "1"), Dir("e").Owned(3, 3, 0o700), File("e/x", "1")},
		{Dir("./"), Dir("d"), File("d/before", "2"), File("d/.wh..wh..opq", ""), File("d/s/y", "2"), File("e/.wh..wh..opq", ""), File("e/.wh.x", "")},
		{Dir("./"), File("d/top", "1")},
	}, map[string]string{"d": dirLine, "d/before": twoLine, "d/s": "40755 0:0", "d/s/y": twoLine, "d/top": oneLine, "e": "40700 3:3" + old}},
	{"opaque root", [][]Entry{
		{Dir("./"), File("a", "1"), Dir("d").Owned(1, 1, 0o700), File("d/x", "1")},
		{File(".wh..wh..opq", ""), File("d/y", "2"), File(".wh.a", "")},
		{File("b", "1")},
	}, map[string]string{"d": "40755 0:0", "d/y": twoLine, "b": oneLine}},
	{"implicit parents", [][]Entry{
		{Dir("./").Owned(3, 4, 0o711), Dir("etc").Owned(1, 2, 0o2750).With("user.note", "1"), Dir("etc/s").Owned(5, 6, 0o700), File("etc/s/x", "1"), File("f", "1"), Symlink("l", "etc"), Dir("w"), Dir("w/s").Owned(1, 1, 0o700)},
		{Dir("x").Owned(8, 8, 0o700), File(".wh.w", "")},
		{File("etc/s/y", "2"), File("f/below", "2"), File("l/below", "2"), File("x/y", "2"), File("w/s/y", "2"), File("fresh/s/y", "2")},
		{File("etc/s/z", "1"), File("w/z", "1")},
	}, map[string]string{
		"etc": "42750 1:2" + old + " user.note=31", "etc/s": "40700 5:6" + old, "etc/s/x": oneLine, "etc/s/y": twoLine, "etc/s/z": oneLine,
		"f": "40755 0:0", "f/below": twoLine, "l": "40755 0:0", "l/below": twoLine, "x": "40700 8:8" + old, "x/y": twoLine,
		"w": "40755 0:0", "w/s": "40755 0:0", "w/s/y": twoLine, "w/z": oneLine, "fresh": "40755 0:0", "fresh/s": "40755 0:0", "fresh/s/y": twoLine,
	}},
	{"replaced", [][]Entry{
		{Dir("./"), File("a", "1"), Dir("d").With("user.note", "1"), File("d/x", "1"), Symlink("l", "d"), Dir("e"), File("e/x", "1"), Dir("k").Owned(1, 1, 0o700).With("user.note", "1"), File("k/x", "1"), device("p", tar.TypeFifo, 0, 0)},
		{Dir("./"), Dir("a"), File("a/x", "2"), File("d", "2"), Dir("l"), File("l/y", "2"), Symlink("e", "/a"), Dir("k").With("user.other", "2"), File("p", "2")},
	}, map[string]string{
		"a": dirLine, "a/x": twoLine, "d": twoLine, "l": dirLine, "l/y": twoLine, "e": "120777 0:0 -> /a" + old,
		"k": dirLine + " user.other=32", "k/x": oneLine, "p": twoLine,
	}},
	{"hard links", [][]Entry{
		{Dir("./"), File("a", "1"), Link("b", "a"), Dir("d"), Link("d/c", "b")},
		{Dir("./"), File(".wh.a", ""), File("e", "2"), Link("f", "e")},
	}, map[string]string{"b": oneLine, "d": dirLine, "d/c": oneLine[:len(oneLine)-len(old)] + " = b" + old, "e": twoLine, "f": twoLine[:len(twoLine)-len(old)] + " = e" + old}},
	{"handed down", [][]Entry{
		{Dir("./").Owned(0, 50, 0o2775).With("system.posix_acl_default", acl), Dir("d").Owned(0, 50, 0o2775).With("system.posix_acl_default", acl)},
		{File("a", "1"), Dir("new"), File("d/s/x", "1")},
	}, map[string]string{
		"a": oneLine, "new": dirLine, "d": "42775 0:50" + old + " system.posix_acl_default=" + aclHex, "d/s": "40755 0:0", "d/s/x": oneLine,
	}},
}

package build

import (
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// What is copied counts by its names, modes, links, attributes and bytes, and by
// nothing else.
func TestContent(t *testing.T) {
	dir := t.TempDir()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(os.MkdirAll(dir+"/d/e", 0o755))
	do(os.WriteFile(dir+"/d/a.txt", []byte("a"), 0o644))
	do(os.WriteFile(dir+"/d/b.log", []byte("b"), 0o644))
	do(os.Symlink("a.txt", dir+"/d/link"))
	s := &Solver{}
	sum := func(path string) digest.Digest {
		t.Helper()
		d, err := s.content(t.Context(), &output{dir: dir}, []selector{{path: path, wildcards: true}})
		do(err)
		return d
	}
	type change struct {
		name        string
		do          func() error
		whole, text bool // whether /d and /d/*.txt change by it
	}
	for _, c := range []change{
		{"nothing", func() error { return nil }, false, false},
		{"a time", func() error { return os.Chtimes(dir+"/d/a.txt", time.Unix(1, 0), time.Unix(1, 0)) }, false, false},
		{"bytes", func() error { return os.WriteFile(dir+"/d/a.txt", []byte("A"), 0o644) }, true, true},
		{"a mode", func() error { return os.Chmod(dir+"/d/a.txt", 0o600) }, true, true},
		{"another file", func() error { return os.WriteFile(dir+"/d/b.log", []byte("B"), 0o644) }, true, false},
		{"a name", func() error { return os.Rename(dir+"/d/b.log", dir+"/d/c.log") }, true, false},
		{"a link", func() error { return os.Remove(dir + "/d/link") }, true, false},
		{"what it leads to", func() error { return os.Symlink("e", dir+"/d/link") }, true, false},
		{"a new match", func() error { return os.WriteFile(dir+"/d/n.txt", nil, 0o644) }, true, true},
		{"a directory for a file", func() error {
			return firstError(os.Remove(dir+"/d/n.txt"), os.Mkdir(dir+"/d/n.txt", 0o644))
		}, true, true},
		{"bytes that move to the next file", func() error {
			return firstError(os.WriteFile(dir+"/d/a.txt", []byte("Ax"), 0o600), os.WriteFile(dir+"/d/m.txt", nil, 0o600))
		}, true, true},
		{"a directory's mode", func() error { return os.Chmod(dir+"/d/e", 0o700) }, true, false},
	} {
		whole, text := sum("/d"), sum("/d/*.txt")
		do(c.do())
		if got := sum("/d") != whole; got != c.whole {
			t.Errorf("%s: the directory changes: %v", c.name, got)
		}
		if got := sum("/d/*.txt") != text; got != c.text {
			t.Errorf("%s: the pattern changes: %v", c.name, got)
		}
	}
	do(os.WriteFile(dir+"/n[1]", []byte("1"), 0o644)) // as a mount names it
	literal := func() digest.Digest {
		d, err := s.content(t.Context(), &output{dir: dir}, []selector{{path: "/n[1]"}})
		do(err)
		return d
	}
	first := literal()
	do(os.WriteFile(dir+"/n[1]", []byte("2"), 0o644))
	if literal() == first {
		t.Error("a name was taken for a pattern")
	}
	before := sum("/d")
	if err := unix.Setxattr(dir+"/d/a.txt", "user.x", []byte("1"), 0); err == nil && sum("/d") == before {
		t.Error("an attribute does not count")
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

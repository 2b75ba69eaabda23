package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/fault"
)

// pile writes an archive of which each entry's data is its name and number.
func pile(t *testing.T, entries []tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, h := range entries {
		h.Mode, h.Uid, h.Gid, h.ModTime = 0o640, os.Getuid(), os.Getgid(), time.Unix(int64(1_000_000_000+i), 0)
		data := []byte{}
		if h.Typeflag == tar.TypeReg {
			data = []byte(strings.Repeat(fmt.Sprint(h.Name, i), 1+i%200))
		}
		h.Size = int64(len(data))
		if h.Typeflag == tar.TypeDir {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func told(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintln(&b, name, info.Mode())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintln(&b, info.ModTime(), string(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Made by many, a tree is as it is when one makes it.
func TestCrew(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	many := []tar.Header{{Name: "./", Typeflag: tar.TypeDir}}
	for d := range 80 {
		many = append(many, tar.Header{Name: fmt.Sprintf("./d%d/", d), Typeflag: tar.TypeDir})
		for f := range 50 {
			many = append(many, file(fmt.Sprintf("./d%d/f%d", d, f)))
		}
		many = append(many, tar.Header{Name: fmt.Sprintf("./d%d/link", d), Typeflag: tar.TypeLink, Linkname: fmt.Sprintf("./d%d/f49", d)},
			file(fmt.Sprintf("./d%d/f3", d)), file(fmt.Sprintf("./d%d/f3", d)), file(fmt.Sprintf("./none%d/f", d)))
	}
	cases := map[string][]tar.Header{
		"many":    many,
		"twice":   {file("a"), file("b"), file("a"), file("b"), file("a")},
		"instead": {file("a"), {Name: "a", Typeflag: tar.TypeDir}, file("a/b"), file("a"), {Name: "s", Typeflag: tar.TypeSymlink, Linkname: "a"}, file("s")},
		"below":   {file("a"), file("a/b")},
		"climbs":  {file("a"), file("b"), file("../c")},
		"by link": {file("d/a"), {Name: "l", Typeflag: tar.TypeSymlink, Linkname: "d"}, file("l/b"), file("d/c"), file("l/c")},
	}
	for name, entries := range cases {
		data := pile(t, entries)
		for what, cut := range map[string][]byte{name: data, name + ", cut off": data[:len(data)-1600]} {
			var trees [2]string
			var errs [2]error
			var stats [2]Stats
			for i, crew := range []bool{false, true} {
				dir := t.TempDir()
				root, err := os.Open(dir)
				if err != nil {
					t.Fatal(err)
				}
				stats[i], errs[i] = Extract(t.Context(), root, bytes.NewReader(cut), Options{Whiteouts: NoWhiteouts, Crew: crew})
				root.Close()
				trees[i] = told(t, dir)
			}
			if fmt.Sprint(errs[0]) != fmt.Sprint(errs[1]) || errs[0] != nil && !errors.Is(errs[1], fault.Invalid) {
				t.Errorf("%s: %v, by a crew %v", what, errs[0], errs[1])
			}
			if errs[0] == nil && (trees[0] != trees[1] || fmt.Sprint(stats[0]) != fmt.Sprint(stats[1])) {
				t.Errorf("%s: %+v and by a crew %+v\n%s\nand by a crew\n%s", what, stats[0], stats[1], trees[0], trees[1])
			}
		}
	}
}

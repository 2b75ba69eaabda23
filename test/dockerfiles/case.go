package dockerfiles

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// example is a case of testdata.
type example struct {
	name string
	dir  string
}

func examples(t *testing.T) []example {
	t.Helper()
	dirs, err := filepath.Glob("testdata/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no cases in testdata: %v", err)
	}
	var list []example
	for _, dir := range dirs {
		list = append(list, example{filepath.Base(dir), dir})
	}
	return list
}

func (e example) image() string { return "example/" + e.name }

// read is the text of a case's file, and whether there is one.
func (e example) read(t testing.TB, name string) (string, bool) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(e.dir, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data), err == nil
}

// lines are those of a case's file, none if there is none.
func (e example) lines(t testing.TB, name string) []string {
	text, _ := e.read(t, name)
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

// needs tells whether any file of the case has the text.
func (e example) needs(t testing.TB, text string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(e.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		found = found || strings.Contains(string(data), text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// past is when the files of a context were last changed.
var past = time.Unix(1600000000, 0)

// checkout copies the case to where the programs of the peer see it, with
// modes and times that do not depend on who cloned the repository.
func (e example) checkout(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "tare-example-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.CopyFS(dir, os.DirFS(e.dir)); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
		return os.Chtimes(path, past, past)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

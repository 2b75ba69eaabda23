package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// copyInto unpacks an archive that is no layer below the directory root.
func copyInto(t *testing.T, root string, archive io.Reader, o Options) error {
	t.Helper()
	o.Whiteouts = NoWhiteouts
	_, err := extractBy(t, root, archive, o)
	return err
}

// namesOf lists the entries of what WriteOne makes of a path.
func namesOf(t *testing.T, path, name string) (names []string, text map[string]string) {
	t.Helper()
	place, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	must(t, err)
	defer place.Close()
	var out bytes.Buffer
	must(t, WriteOne(context.Background(), &out, place, name, WriteOptions{Seconds: true}))
	text = map[string]string{}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names, text
		}
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		names, text[h.Name] = append(names, h.Name), string(data)+h.Linkname
		if h.ModTime.Nanosecond() != 0 {
			t.Errorf("%s has the time %v", h.Name, h.ModTime)
		}
	}
}

func TestWriteOne(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/d/sub", 0o755), os.WriteFile(root+"/d/f", []byte("text"), 0o644), os.Link(root+"/d/f", root+"/d/sub/g"), os.Symlink("f", root+"/d/l"))
	for name, want := range map[string][]string{
		"x": {"x/", "x/f", "x/l", "x/sub/", "x/sub/g"}, ".": {"./", "./f", "./l", "./sub/", "./sub/g"}, "/": {"/", "/f", "/l", "/sub/", "/sub/g"},
	} {
		names, text := namesOf(t, root+"/d", name)
		if d := cmp.Diff(want, names); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if text[want[1]] != "text" || text[want[4]] != want[1] || text[want[2]] != "f" {
			t.Errorf("%s: %v", name, text)
		}
	}
	if names, text := namesOf(t, root+"/d/f", "as"); len(names) != 1 || text["as"] != "text" {
		t.Errorf("a file: %v", text)
	}
	if names, text := namesOf(t, root+"/d/l", "as"); len(names) != 1 || text["as"] != "f" {
		t.Errorf("a link: %v", text)
	}
}

// An archive that is no layer goes where it is told to, under the name and owner
// that it is told.
func TestExtractIntoATree(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/real/there", 0o700), os.Symlink("/real", root+"/way"), os.Symlink("/real/there", root+"/real/out"))
	hard := hardlink("src/h", "src/.wh.f")
	in := pack(t, dir("src/"), file("src/.wh.f", "1"), hard, file("src/new/g", "2"), file("source", "3"))
	must(t, copyInto(t, root, bytes.NewReader(in.Bytes()), Options{Dir: "way", From: "src", To: "dst", Owner: &Owner{UID: 5, GID: 6}}))
	got := tree(t, root+"/real")
	for name, want := range map[string]string{"dst/.wh.f": "1", "dst/h": "1", "dst/new/g": "2", "source": "3"} {
		if got[name] != want {
			t.Errorf("%s is %q", name, got[name])
		}
	}
	var st, link unix.Stat_t
	must(t, unix.Lstat(root+"/real/dst/.wh.f", &st), unix.Lstat(root+"/real/dst/h", &link))
	if st.Uid != 5 || st.Gid != 6 || st.Ino != link.Ino {
		t.Errorf("%d:%d, inodes %d and %d", st.Uid, st.Gid, st.Ino, link.Ino)
	}
	// What the archive says of the directory that it goes to is not said of that.
	top := dir("./")
	top.hdr.Mode, top.hdr.Uid = 0o777, 9
	must(t, copyInto(t, root, pack(t, top, file("./out/f", "4")), Options{Dir: "real"}))
	must(t, unix.Lstat(root+"/real", &st))
	if st.Mode&0o777 != 0o700 || st.Uid != 0 {
		t.Errorf("the directory is %o of %d", st.Mode, st.Uid)
	}
	if data, err := os.ReadFile(root + "/real/there/f"); string(data) != "4" {
		t.Errorf("by a link: %q, %v", data, err)
	}
	if err := copyInto(t, root, pack(t, file("../f", "")), Options{Dir: "real"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("out of the directory: %v", err)
	}
	other := file("mine", "5")
	other.hdr.Uid, other.hdr.Gid = 7, 8
	must(t, copyInto(t, root, pack(t, other, file("implied/f", "")), Options{Mine: true}))
	must(t, unix.Lstat(root+"/mine", &st))
	if st.Uid != 0 || st.Gid != 0 {
		t.Errorf("ours belongs to %d:%d", st.Uid, st.Gid)
	}
}

func TestKeepKinds(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/d/full", 0o755), os.WriteFile(root+"/f", []byte("old"), 0o644), os.Symlink("d", root+"/l"))
	o := Options{Mine: true, KeepKinds: true}
	for _, e := range []entry{file("d", ""), symlink("d", "x"), dir("f/"), dir("l/")} {
		if err := copyInto(t, root, pack(t, e), o); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "cannot overwrite") {
			t.Errorf("%s of type %c: %v", e.hdr.Name, e.hdr.Typeflag, err)
		}
	}
	must(t, copyInto(t, root, pack(t, file("f", "new"), file("l", "file"), dir("d/")), o))
	if got := tree(t, root); got["f"] != "new" || got["l"] != "file" {
		t.Errorf("%v", got)
	}
	if _, err := os.Stat(root + "/d/full"); err != nil {
		t.Error(err)
	}
	o.KeepKinds = false
	must(t, copyInto(t, root, pack(t, file("d", "file"), dir("f/")), o))
	if got := tree(t, root); got["d"] != "file" {
		t.Errorf("%v", got)
	}
}

// race runs change over and over until the returned function is called.
func race(change func()) (stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
				change()
			}
		}
	})
	return func() { close(end); wg.Wait() }
}

// A container that swaps what is copied for links to the host's files while it is
// copied gets nothing written there, and nothing is read there.
func TestRacingLinks(t *testing.T) {
	testutil.RequireRoot(t)
	base := inMemory(t)
	root, outside := base+"/root", base+"/outside"
	must(t, os.MkdirAll(root+"/d/e", 0o755), os.MkdirAll(outside+"/e", 0o755), os.WriteFile(outside+"/secret", []byte("secret"), 0o600),
		os.WriteFile(outside+"/e/secret", []byte("secret"), 0o600), os.WriteFile(root+"/d/secret", []byte("open"), 0o644), os.WriteFile(root+"/d/e/secret", []byte("open"), 0o644))
	links := []string{outside, "../outside", "../../../../../../../../.." + outside}
	swaps := 0
	stopDir := race(func() {
		swaps++
		_ = os.Rename(root+"/d", root+"/kept")
		_ = os.Symlink(links[swaps%len(links)], root+"/d")
		_ = os.Remove(root + "/d")
		_ = os.Rename(root+"/kept", root+"/d")
	})
	stopNode := race(func() {
		_ = os.Remove(root + "/pipe")
		_ = os.Symlink(outside+"/secret", root+"/pipe")
	})
	pipe := entry{tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o4777}, ""}
	into := pack(t, file("f", "in"), dir("e/"), file("e/secret", "in"), pipe).Bytes()
	at, err := os.Open(root)
	must(t, err)
	defer at.Close()
	for i := range 200 {
		// Any of it may fail in the middle of a swap.
		for _, dir := range []string{"d", "d/e", ""} {
			_, _ = Extract(context.Background(), at, bytes.NewReader(into), Options{Whiteouts: NoWhiteouts, Dir: dir, KeepKinds: i%2 == 0})
		}
		var out bytes.Buffer
		if place, err := OpenPlace(at, "/d", true); err == nil {
			_ = WriteOne(context.Background(), &out, place, "d", WriteOptions{})
			place.Close()
		}
		if root, err := OpenPlace(at, "/", true); err == nil {
			_ = WriteOne(context.Background(), &out, root, ".", WriteOptions{})
			root.Close()
		}
		if bytes.Contains(out.Bytes(), append([]byte("secret"), make([]byte, tarBlock-6)...)) {
			t.Fatal("a file of the host was read")
		}
	}
	stopDir()
	stopNode()
	got := map[string]string{}
	must(t, filepath.Walk(outside, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			data, _ := os.ReadFile(path)
			got[strings.TrimPrefix(path, outside)] = info.Mode().String() + " " + string(data)
		}
		return err
	}))
	want := map[string]string{"": "drwxr-xr-x ", "/e": "drwxr-xr-x ", "/secret": "-rw------- secret", "/e/secret": "-rw------- secret"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("after %d swaps: %s", swaps, d)
	}
}

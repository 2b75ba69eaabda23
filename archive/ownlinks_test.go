package archive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// filesBelow lists the regular files of a tree.
func filesBelow(t *testing.T, root string) (list []string) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			name, err = filepath.Rel(root, name)
			list = append(list, name)
		}
		return err
	}))
	return list
}

// The links of an archive lead nowhere but in the directory that it goes to; those
// that were there lead where they did.
func TestOwnLinks(t *testing.T) {
	testutil.RequireRoot(t)
	through := func(name string) entry { return file(name+"/through", "") }
	for _, c := range []struct {
		name    string
		entries []entry
		want    string // where the file is; "" if it is refused
	}{
		{"absolute", []entry{symlink("l", "/etc"), through("l")}, "tmp/etc/through"},
		{"absolute, some directories deep", []entry{symlink("l", "/etc/a/b"), through("l")}, "tmp/etc/a/b/through"},
		{"in the directory", []entry{dir("d"), symlink("l", "/d"), through("l")}, "tmp/d/through"},
		{"relative", []entry{dir("d"), symlink("d/l", "../e"), dir("e"), through("d/l")}, "tmp/e/through"},
		{"relative, missing", []entry{symlink("l", "x/./y"), through("l")}, "tmp/x/y/through"},
		{"climbs", []entry{symlink("l", "../etc"), through("l")}, ""},
		{"climbs late", []entry{dir("d"), symlink("d/l", "../../etc"), through("d/l")}, ""},
		{"through another", []entry{symlink("a", "/etc"), symlink("b", "a/sub"), through("b")}, "tmp/etc/sub/through"},
		{"there before", []entry{through("before")}, "etc/through"},
		{"there before, beside another", []entry{symlink("l", "/x"), through("before")}, "etc/through"},
		{"there before, climbs", []entry{symlink("l", "/x"), through("up")}, "etc/through"},
		{"through one there before", []entry{symlink("l", "before"), through("l")}, "etc/through"},
		{"below one there before", []entry{symlink("before/l", "../../opt"), through("before/l")}, ""},
		{"below one there before, absolute", []entry{symlink("before/l", "/opt"), through("before/l")}, "tmp/opt/through"},
		{"one there before through it", []entry{symlink("l", "../etc"), through("to-l")}, ""},
		{"one there before through it, absolute", []entry{symlink("l", "/etc"), through("to-l")}, "tmp/etc/through"},
		{"replaced", []entry{symlink("l", "/etc"), through("l/x"), dir("l"), through("l/x")}, "tmp/etc/x/through tmp/l/x/through"},
		{"takes the place of one", []entry{symlink("before", "/opt"), through("before")}, "tmp/opt/through"},
		{"of a directory", []entry{through("d"), symlink("d", "/etc"), through("d")}, "tmp/etc/through"},
		{"a loop", []entry{symlink("a", "b"), symlink("b", "a"), through("a")}, ""},
		{"a hard link through it", []entry{symlink("l", "/etc"), hardlink("g", "l/passwd")}, ""},
		{"a hard link", []entry{symlink("l", "/d"), file("d/through", ""), hardlink("l/g", "l/through")}, "tmp/d/g tmp/d/through"},
		{"a directory", []entry{symlink("l", "/etc"), dir("l/sub"), through("l/sub")}, "tmp/etc/sub/through"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, target := range []string{"tmp", "way/to"} {
				root := t.TempDir()
				must(t, extract(t, root, pack(t, dir("etc"), file("etc/passwd", ""), dir("etc/sub"), dir("tmp"), dir("way"),
					symlink("way/to", "../tmp"), symlink("tmp/before", "/etc"), symlink("tmp/up", "../etc"), symlink("tmp/to-l", "/tmp/l"))))
				err := copyInto(t, root, pack(t, c.entries...), Options{Dir: target})
				if c.want == "" && !errors.Is(err, fault.Invalid) || c.want != "" && err != nil {
					t.Error(err)
				}
				want := strings.TrimSpace("etc/passwd " + c.want)
				if got := strings.Join(filesBelow(t, root), " "); got != want {
					t.Errorf("to %s: %q, want %q", target, got, want)
				}
				var st unix.Stat_t
				must(t, unix.Stat(root+"/etc/sub", &st))
				if st.Mtim.Sec != 1_000_000_000 {
					t.Errorf("to %s: a directory outside has the time %d", target, st.Mtim.Sec)
				}
			}
		})
	}
}

// An archive makes no more links than can be remembered.
func TestOwnLinksAreBounded(t *testing.T) {
	old := maxOwn
	t.Cleanup(func() { maxOwn = old })
	maxOwn = 2
	root := t.TempDir()
	must(t, os.Mkdir(root+"/tmp", 0o755))
	links := []entry{symlink("a", "x"), symlink("b", "x"), symlink("c", "x")}
	for i := range links {
		links[i].hdr.Uid, links[i].hdr.Gid = os.Getuid(), os.Getgid()
	}
	must(t, copyInto(t, root, pack(t, links...), Options{}))
	must(t, copyInto(t, root, pack(t, links[:2]...), Options{Dir: "tmp"}))
	if err := copyInto(t, root, pack(t, links...), Options{Dir: "tmp"}); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// The attributes of a hard link's entry count, as it is the last of the file.
func TestHardLinkAttributes(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	g, h := hardlink("g", "f"), hardlink("h", "l")
	for _, e := range []*entry{&g, &h} {
		e.hdr.Uid, e.hdr.Gid, e.hdr.Mode, e.hdr.ModTime = 3, 4, 0o4750, time.Unix(1_100_000_000, 0)
		e.hdr.PAXRecords = map[string]string{paxXattr + "trusted.x": "y"}
	}
	h.hdr.PAXRecords = nil
	must(t, extract(t, root, pack(t, file("f", "x"), symlink("l", "f"), g, h)))
	var st unix.Stat_t
	must(t, unix.Lstat(root+"/f", &st))
	if st.Uid != 3 || st.Gid != 4 || st.Mode&0o7777 != 0o4750 || st.Mtim.Sec != 1_100_000_000 || st.Nlink != 2 {
		t.Errorf("the file is %+v", st)
	}
	value := make([]byte, 8)
	if n, err := unix.Lgetxattr(root+"/f", "trusted.x", value); err != nil || string(value[:n]) != "y" {
		t.Errorf("the attribute is %q, %v", value[:max(n, 0)], err)
	}
	must(t, unix.Lstat(root+"/l", &st))
	if st.Uid != 3 || st.Gid != 4 || st.Mtim.Sec != 1_000_000_000 {
		t.Errorf("the symbolic link is %+v", st)
	}
	// A capability stays where nothing differs, as no writer need say it twice.
	same := file("c", "x")
	same.hdr.PAXRecords = map[string]string{paxXattr + "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	again := hardlink("d", "c")
	again.hdr.Mode = 0o644
	must(t, extract(t, root, pack(t, same, again)))
	if _, err := unix.Lgetxattr(root+"/c", "security.capability", make([]byte, 64)); err != nil {
		t.Error("the capability is gone", err)
	}
}

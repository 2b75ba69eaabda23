package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/deltree"
	"github.com/tarehq/tare/internal/testutil"
	"golang.org/x/sys/unix"
)

type entry struct {
	hdr  tar.Header
	data string
}

func dir(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}
func file(name, data string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}, data}
}
func link(kind byte, name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: kind, Linkname: target, Mode: 0o777}, ""}
}
func symlink(name, target string) entry  { return link(tar.TypeSymlink, name, target) }
func hardlink(name, target string) entry { return link(tar.TypeLink, name, target) }

func pack(t testing.TB, entries ...entry) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if e.hdr.ModTime.IsZero() {
			e.hdr.ModTime = time.Unix(1_000_000_000, 0)
		}
		if err := w.WriteHeader(&e.hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

func extract(t testing.TB, into string, r io.Reader) error {
	t.Helper()
	_, err := extractWith(t, into, r, DropWhiteouts)
	return err
}

func extractWith(t testing.TB, into string, r io.Reader, w Whiteouts) (Stats, error) {
	t.Helper()
	return extractBy(t, into, r, Options{Whiteouts: w})
}

func extractBy(t testing.TB, into string, r io.Reader, o Options) (Stats, error) {
	t.Helper()
	root, err := os.Open(into)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return Extract(context.Background(), root, r, o)
}

// tree lists what is below dir: path, kind, and a file's content or a link's
// target.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		switch d.Type() {
		case 0:
			data, _ := os.ReadFile(p)
			found[rel] = string(data)
		case os.ModeSymlink:
			target, _ := os.Readlink(p)
			found[rel] = "-> " + target
		default:
			found[rel] = d.Type().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestExtractKeepsEverything(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	long := strings.Repeat("long/", 60) + strings.Repeat("n", 200)
	suid := file("bin/su", "su")
	suid.hdr.Mode, suid.hdr.Uid, suid.hdr.Gid = 0o4755, 7, 3_000_000_000
	again := hardlink("bin/su2", "/bin/su")
	again.hdr.Mode, again.hdr.Uid, again.hdr.Gid = suid.hdr.Mode, suid.hdr.Uid, suid.hdr.Gid
	caps := file("bin/ping", "ping")
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	caps.hdr.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "hello"}
	acl := file("bin/acl", "x")
	acl.hdr.PAXRecords = map[string]string{"SCHILY.acl.access": "user::rw-,user:joe:r--:1000,group::r--,mask::r--,other::---"}
	device := entry{tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
	err := extract(t, root, pack(t, dir("./"), dir("bin/"), suid, caps, acl, symlink("sh", "/bin/su"), again,
		device, entry{tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600}, ""}, file(long, "deep")))
	if err != nil {
		t.Fatal(err)
	}
	var st, st2 unix.Stat_t
	unix.Lstat(root+"/bin/su", &st)
	unix.Lstat(root+"/bin/su2", &st2)
	if st.Mode&0o7777 != 0o4755 || st.Uid != 7 || st.Gid != 3_000_000_000 || st.Ino != st2.Ino || st.Mtim.Sec != 1_000_000_000 {
		t.Errorf("bin/su is %+v, its hard link inode %d", st, st2.Ino)
	}
	if unix.Lstat(root+"/bin", &st); st.Mtim.Sec != 1_000_000_000 {
		t.Errorf("the time of bin/ is %d", st.Mtim.Sec)
	}
	if unix.Lstat(root+"/dev/null", &st); st.Mode != unix.S_IFCHR|0o666 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("dev/null is %o %x", st.Mode, st.Rdev)
	}
	buf := make([]byte, 100)
	if n, err := unix.Lgetxattr(root+"/bin/ping", "security.capability", buf); err != nil || string(buf[:n]) != capability {
		t.Errorf("the capability is %q, %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Lgetxattr(root+"/bin/ping", "user.note", buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("the attribute is %v", err)
	}
	if n, err := unix.Lgetxattr(root+"/bin/acl", "system.posix_acl_access", buf); err != nil || n != 4+5*8 {
		t.Errorf("the access list has %d bytes: %v", n, err)
	}
	if got := tree(t, root); got[long] != "deep" || got["sh"] != "-> /bin/su" || got["fifo"] != os.ModeNamedPipe.String() {
		t.Error("the tree is", got)
	}
}

func TestExtractStaysInside(t *testing.T) {
	testutil.RequireRoot(t)
	overlay := file("f", "")
	overlay.hdr.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"}
	cases := []struct {
		name    string
		entries []entry
		refused string
		want    map[string]string // a part of the tree
	}{
		{name: "climb", entries: []entry{file("../x", "bad")}, refused: `archive entry "../x" is outside of`},
		{name: "climb after", entries: []entry{file("a/../../x", "bad")}, refused: "is outside of"},
		{name: "absolute climb", entries: []entry{file("/../x", "bad")}, refused: "is outside of"},
		{name: "only dots", entries: []entry{dir("..")}, refused: "is outside of"},
		{name: "absolute", entries: []entry{file("/x", "ok")}, want: map[string]string{"x": "ok"}},
		{name: "through absolute link", entries: []entry{symlink("a", "/"), file("a/x", "ok")}, want: map[string]string{"x": "ok"}},
		{name: "through climbing link", entries: []entry{symlink("a", "../../.."), file("a/x", "ok")}, want: map[string]string{"x": "ok"}},
		{name: "through link to outside", entries: []entry{symlink("a", "OUT"), file("a/x", "ok")}},
		{name: "over link to outside", entries: []entry{symlink("x", "OUT/x"), file("x", "ok")}, want: map[string]string{"x": "ok"}},
		{name: "directory over link", entries: []entry{symlink("a", "OUT"), dir("a"), file("a/x", "ok")}, want: map[string]string{"a/x": "ok"}},
		{name: "link swapped", entries: []entry{dir("a"), file("a/y", ""), symlink("a", "OUT"), file("a/x", "ok")}},
		{name: "hard link outside", entries: []entry{hardlink("a", "../OUTNAME/secret")}, refused: "hard link to"},
		{name: "hard link absolute", entries: []entry{hardlink("a", "OUT/secret")}, refused: "not in the archive before it"},
		{name: "hard link through link", entries: []entry{symlink("d", "OUT"), hardlink("a", "d/secret")}, refused: "not in the archive before it"},
		{name: "hard link to link", entries: []entry{symlink("l", "OUT/secret"), hardlink("a", "l"), file("a", "new")}, want: map[string]string{"a": "new"}},
		{name: "hard link to directory", entries: []entry{dir("d"), hardlink("a", "d")}, refused: "hard link to the directory"},
		{name: "hard link to what goes for it", entries: []entry{file("a/b", "1"), hardlink("a", "a/b")}, refused: "whose place it takes"},
		{name: "hard link to itself", entries: []entry{file("a", "1"), hardlink("a", "a")}, want: map[string]string{"a": "1"}},
		{name: "loop", entries: []entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "")}, refused: "loop of symbolic links"},
		{name: "below a file", entries: []entry{file("a", ""), file("a/x", "")}, refused: "not a directory"},
		{name: "twice", entries: []entry{file("a", "1"), file("a", "2")}, want: map[string]string{"a": "2"}},
		{name: "file over tree", entries: []entry{dir("a"), file("a/b/c", "1"), file("a", "2")}, want: map[string]string{"a": "2"}},
		{name: "whiteout of dots", entries: []entry{file(".wh...", "")}, refused: "hides nothing"},
		{name: "whiteout of nothing", entries: []entry{file("a/.wh.", "")}, refused: "hides nothing"},
		{name: "whiteout device", entries: []entry{file("x", "1"), {tar.Header{Name: ".wh.x", Typeflag: tar.TypeBlock, Devmajor: 8}, ""}}},
		{name: "no device", entries: []entry{{tar.Header{Name: "x", Typeflag: tar.TypeChar}, ""}}, refused: "character device 0:0"},
		{name: "below a whiteout", entries: []entry{file("a/.wh.x/y", "")}, refused: "lies below a whiteout"},
		{name: "below a whiteout by a link", entries: []entry{symlink("a", ".wh.x/y"), file("a/y", "")}, refused: "leads to a whiteout"},
		{name: "hard link to whiteout", entries: []entry{file(".wh.x", ""), hardlink("a", ".wh.x")}, refused: "not in the archive before it"},
		{name: "aufs", entries: []entry{file(".wh..wh.plnk/1", ""), file(".wh..wh.aufs", ""), file("x", "ok")}, want: map[string]string{"x": "ok"}},
		{name: "root replaced", entries: []entry{symlink("./", "/etc")}, refused: "would replace the root"},
		{name: "overlay attribute", entries: []entry{overlay}, refused: "belongs to the overlay"},
		{name: "negative owner", entries: []entry{{tar.Header{Name: "a", Typeflag: tar.TypeReg, Uid: -2, Format: tar.FormatGNU}, ""}}, refused: "are no IDs"},
		{name: "long component", entries: []entry{file(strings.Repeat("n", 300), "")}, refused: "too long"},
		{name: "long path", entries: []entry{file(strings.Repeat("n/", 3000)+"x", "")}, refused: "too long"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			root, out := base+"/root", base+"/out"
			os.Mkdir(root, 0o755)
			os.Mkdir(out, 0o755)
			os.WriteFile(out+"/secret", []byte("secret"), 0o600)
			for i := range c.entries {
				c.entries[i].hdr.Linkname = strings.NewReplacer("OUTNAME", "out", "OUT", out).Replace(c.entries[i].hdr.Linkname)
			}
			_, err := extractWith(t, root, pack(t, c.entries...), KeepWhiteouts)
			if c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused) || !errors.Is(err, fault.Invalid)) {
				t.Errorf("want the refusal %q, got %v", c.refused, err)
			}
			if c.refused == "" && err != nil {
				t.Error(err)
			}
			got := tree(t, root)
			for name, want := range c.want {
				if got[name] != want {
					t.Errorf("%s is %q in %v", name, got[name], got)
				}
			}
			if o := tree(t, out); len(o) != 1 || o["secret"] != "secret" {
				t.Errorf("what lies outside has become %v", o)
			}
			if entries, _ := os.ReadDir(base); len(entries) != 2 {
				t.Errorf("beside the root there is %v", entries)
			}
		})
	}
}

func TestExtractWhiteouts(t *testing.T) {
	testutil.RequireRoot(t)
	upper := t.TempDir()
	stats, err := extractWith(t, upper, pack(t, file("etc/.wh.a", ""), file("etc/new", ""), file("etc/.wh.new", ""), dir("var"), file("var/.wh..wh..opq", ""), file("var/y", "")), OverlayWhiteouts)
	if err != nil || stats.Root || fmt.Sprint(stats.Implicit) != "[etc]" {
		t.Fatal(stats, err)
	}
	var st unix.Stat_t
	for _, name := range []string{"etc/a", "etc/new"} {
		if err := unix.Lstat(upper+"/"+name, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
			t.Errorf("%s is no whiteout: %o %v", name, st.Mode, err)
		}
	}
	checkOpaque(t, upper+"/var", true)
	again := t.TempDir()
	stats, err = extractWith(t, again, pack(t, dir("./"), file(".wh.var", ""), dir("var"), file("var/z", ""), dir("etc"), file(".wh.opt", ""), file("opt/x/y", "")), OverlayWhiteouts)
	if err != nil || !stats.Root || fmt.Sprint(stats.Implicit) != "[opt/x]" || fmt.Sprint(stats.Hiding) != "[.]" {
		t.Fatal(stats, err)
	}
	checkOpaque(t, again+"/var", true) // else it shows what was hidden
	checkOpaque(t, again+"/opt", true)
	checkOpaque(t, again+"/etc", false)
	alone := t.TempDir()
	if err := extract(t, alone, pack(t, file("a", ""), file(".wh.a", ""), file(".wh.b", ""))); err != nil || len(tree(t, alone)) != 0 {
		t.Errorf("a lowest layer keeps %v, %v", tree(t, alone), err)
	}
	kept := t.TempDir()
	_, err = extractWith(t, kept, pack(t, file("a", ""), file(".wh.a", ""), file("d/.wh..wh..opq", ""), file("d/.wh..wh..opq", ""), file("b", "1"), file(".wh.a", "")), KeepWhiteouts)
	if got := fmt.Sprint(tree(t, kept)); err != nil || got != "map[.wh.a: b:1 d:d--------- d/.wh..wh..opq:]" {
		t.Error(got, err)
	}
}

func checkOpaque(t *testing.T, dir string, want bool) {
	t.Helper()
	value := make([]byte, 4)
	n, err := unix.Lgetxattr(dir, "trusted.overlay.opaque", value)
	if got := err == nil && string(value[:n]) == "y"; got != want {
		t.Errorf("%s is opaque: %v, %v", dir, got, err)
	}
}

// Directories that no entry speaks of are told by their real names, until one
// does.
func TestExtractImplicit(t *testing.T) {
	testutil.RequireRoot(t)
	shared := dir("shared")
	shared.hdr.Mode, shared.hdr.Gid = 0o2775, 50
	root := t.TempDir()
	stats, err := extractWith(t, root, pack(t, symlink("lib", "usr/lib"), file("lib/deep/x", "1"), file("lib/later/x", "1"), dir("usr/lib/later"),
		shared, file("shared/a/b", ""), file("gone/x", ""), file("gone", ""),
		file("again/x", ""), file("again", ""), dir("again")), DropWhiteouts)
	if want := "[shared/a usr usr/lib usr/lib/deep]"; err != nil || fmt.Sprint(stats.Implicit) != want {
		t.Errorf("%v instead of %v, %v", stats.Implicit, want, err)
	}
	if got := tree(t, root); got["usr/lib/deep/x"] != "1" {
		t.Error("the tree is", got)
	}
	var st unix.Stat_t
	if err := unix.Lstat(root+"/shared/a", &st); err != nil || st.Mode != unix.S_IFDIR|0o755 || st.Gid != 0 {
		t.Errorf("a directory without an entry has mode %o and group %d, %v", st.Mode, st.Gid, err)
	}
}

func TestExtractDamaged(t *testing.T) {
	testutil.RequireRoot(t)
	whole := pack(t, file("a", strings.Repeat("x", 5000)), file("b", "y")).Bytes()
	// Past the last byte of data nothing is missing but padding.
	for n := 100; n <= 12*512; n += 333 {
		err := extract(t, t.TempDir(), bytes.NewReader(whole[:n]))
		if n%512 != 0 && !errors.Is(err, fault.Invalid) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	if err := extract(t, t.TempDir(), strings.NewReader(strings.Repeat("no tar at all ", 100))); !errors.Is(err, fault.Invalid) {
		t.Errorf("text: %v", err)
	}
}

func TestExtractSparse(t *testing.T) {
	testutil.RequireRoot(t)
	// A PAX 0.1 sparse entry of 8 MiB with 4 bytes of data at 4 MiB, as GNU
	// tar writes it; archive/tar reads such entries but does not write them.
	size, at := 8<<20, 4<<20
	var b bytes.Buffer
	record := func(k, v string) string {
		for n := len(k) + len(v) + 4; ; n++ {
			if s := fmt.Sprintf("%d %s=%s\n", n, k, v); len(s) == n {
				return s
			}
		}
	}
	pax := record("GNU.sparse.size", fmt.Sprint(size)) + record("GNU.sparse.numblocks", "1") + record("GNU.sparse.map", fmt.Sprintf("%d,4", at))
	for _, e := range []entry{{tar.Header{Name: "PaxHeaders/s", Typeflag: tar.TypeReg, Size: int64(len(pax)), Mode: 0o644}, pax}, file("s", "data")} {
		raw := pack(t, e).Bytes()
		raw = raw[:len(raw)-1024]
		if e.data == pax {
			raw[156] = 'x'
			var total int
			copy(raw[148:156], "        ")
			for _, c := range raw[:512] {
				total += int(c)
			}
			copy(raw[148:156], fmt.Sprintf("%06o\x00 ", total))
		}
		b.Write(raw)
	}
	b.Write(make([]byte, 1024))
	root := t.TempDir()
	if err := extract(t, root, &b); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(root+"/s", &st); err != nil || st.Size != int64(size) || st.Blocks*512 > 2<<20 {
		t.Errorf("%d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
	if data, _ := os.ReadFile(root + "/s"); string(data[at:at+4]) != "data" {
		t.Error("the data is not at its place")
	}
}

func FuzzExtract(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	f.Add(pack(f, dir("a"), file("a/b", "c"), symlink("d", "/a"), hardlink("e", "d/b"), file("a/.wh.b", "")).Bytes())
	f.Add(pack(f, symlink("a", "b/c"), file("a/x", "1"), file("../y", "")).Bytes())
	f.Add(pack(f, symlink("a", "../secret"), hardlink("b", "a"), file("a/x", "1"), hardlink("c", "../secret"), hardlink("d", "/../secret")).Bytes())
	f.Add(pack(f, symlink("a", "."), symlink("a/b", ".."), file("a/b/c", "")).Bytes())
	maxHoles = 1 << 24
	f.Fuzz(func(t *testing.T, data []byte) {
		// In memory where it can be, as there are so many.
		base, err := os.MkdirTemp("/dev/shm", "FuzzExtract")
		if err != nil {
			base = t.TempDir()
		}
		defer deltree.Remove(base)
		if err := os.MkdirAll(base+"/root/beside", 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(base+"/secret", []byte("secret"), 0o600)
		for i, w := range []Whiteouts{OverlayWhiteouts, KeepWhiteouts} {
			into := fmt.Sprint(base, "/tree", i)
			os.Mkdir(into, 0o755)
			extractWith(t, into, bytes.NewReader(data), w)
		}
		for name, want := range map[string]int{base: 4, base + "/root": 1, base + "/root/beside": 0} {
			if entries, err := os.ReadDir(name); err != nil || len(entries) != want {
				t.Errorf("%s holds %v, %v", name, entries, err)
			}
		}
		var st unix.Stat_t
		secret, err := os.ReadFile(base + "/secret")
		if unix.Lstat(base+"/secret", &st); string(secret) != "secret" || st.Nlink != 1 || st.Mode&0o7777 != 0o600 || st.Uid != 0 {
			t.Errorf("what lies outside is %q with mode %o and %d links, %v", secret, st.Mode, st.Nlink, err)
		}
	})
}

func BenchmarkExtract(b *testing.B) {
	testutil.RequireRoot(b)
	var entries []entry
	for d := range 50 {
		entries = append(entries, dir(fmt.Sprintf("usr/share/d%d", d)))
		for i := range 40 {
			entries = append(entries, file(fmt.Sprintf("usr/share/d%d/f%d", d, i), strings.Repeat("x", 8000)))
		}
	}
	data := pack(b, entries...).Bytes()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := extract(b, b.TempDir(), bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
}

// What is kept of an archive until its end is bounded.
func TestManyDirectories(t *testing.T) {
	testutil.RequireRoot(t)
	defer func(old int) { maxTimes = old }(maxTimes)
	maxTimes = 1000
	var same, many []entry
	for i := range 100 {
		same = append(same, dir("a/"))
		many = append(many, dir(fmt.Sprint(i, "/")))
	}
	if err := extract(t, t.TempDir(), pack(t, same...)); err != nil {
		t.Error(err)
	}
	if err := extract(t, t.TempDir(), pack(t, many...)); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	many = nil
	for i := range 100 {
		many = append(many, file(fmt.Sprint(i, "/x"), ""))
	}
	if err := extract(t, t.TempDir(), pack(t, many...)); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// The corpus of testdata/fuzz is run by every go test; it must be there.
func TestCorpus(t *testing.T) {
	if files, err := os.ReadDir("testdata/fuzz/FuzzExtract"); err != nil || len(files) < 3 {
		t.Errorf("a corpus of %d files, %v", len(files), err)
	}
}

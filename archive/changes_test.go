package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/testutil"
)

// changesOf lists changes as `docker diff` prints them.
func changesOf(t testing.TB, d Diff) []string {
	t.Helper()
	list := []string{}
	must(t, d.Changes(context.Background(), func(c Change) error {
		list = append(list, "CAD"[c.Kind:c.Kind+1]+" "+c.Path)
		return nil
	}))
	return list
}

func layerOf(t testing.TB, d Diff) []byte {
	t.Helper()
	var buf bytes.Buffer
	_, err := d.WriteLayer(context.Background(), &buf, WriteOptions{})
	must(t, err)
	return buf.Bytes()
}

// overlay is a mounted root with changes over a directory.
type overlay struct{ upper, merged string }

// mounted mounts an overlay over lower, and its descriptor's path leads inside.
func mounted(t testing.TB, lower ...string) overlay {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/upper", 0o755), os.Mkdir(dir+"/work", 0o700))
	fd, err := overlayfs.Mount(overlayfs.Overlay{Lower: lower, Upper: dir + "/upper", Work: dir + "/work"}, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return overlay{dir + "/upper", procFD(fd)}
}

func (o overlay) diff(t testing.TB, lower ...string) Diff {
	return Diff{Upper: opened(t, o.upper)[0], Below: opened(t, lower...)}
}

func write(t testing.TB, path, data string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(data), 0o644))
}

func TestChanges(t *testing.T) {
	testutil.RequireRoot(t)
	low := t.TempDir()
	for _, name := range []string{"etc/passwd", "etc/group", "etc/deep/er/x", "usr/gone/a", "usr/gone/b/c", "usr/kind", "usr/again/a", "usr/again/b", "usr/same", "usr/emptied/a", "usr/emptied/b", "opt/quiet", "srv/sub/x", "usr/touched"} {
		write(t, low+"/"+name, name)
	}
	must(t, os.Symlink("passwd", low+"/etc/link"))
	o := mounted(t, low)
	m := o.merged
	must(t, os.WriteFile(m+"/etc/passwd", []byte("new"), 0o644), os.Chmod(m+"/etc/deep/er", 0o700),
		os.RemoveAll(m+"/usr/gone"), os.Remove(m+"/usr/kind"), os.Mkdir(m+"/usr/kind", 0o755), os.WriteFile(m+"/usr/kind/in", nil, 0o644),
		os.RemoveAll(m+"/usr/again"), os.Mkdir(m+"/usr/again", 0o755), os.WriteFile(m+"/usr/again/b", []byte("other"), 0o644),
		os.Remove(m+"/usr/emptied/a"), os.Remove(m+"/usr/emptied/b"), os.WriteFile(m+"/usr/emptied/c", nil, 0o644),
		os.Remove(m+"/etc/link"), os.Symlink("group", m+"/etc/link"),
		os.RemoveAll(m+"/srv/sub"), os.WriteFile(m+"/srv/sub", []byte("a file now"), 0o644),
		unix.Mknod(m+"/sock", unix.S_IFSOCK|0o755, 0), os.MkdirAll(m+"/new/deep", 0o755),
		// What the engine made.
		os.Mkdir(m+"/proc", 0o755), os.WriteFile(m+"/.dockerenv", nil, 0o755), os.MkdirAll(m+"/data/volume", 0o755), os.WriteFile(m+"/etc/hosts", nil, 0o644),
		os.Mkdir(m+"/used", 0o755), os.WriteFile(m+"/used/file", nil, 0o644), os.Symlink("/proc/mounts", m+"/etc/mtab"),
		// Opened for writing, and no more: it is copied up and the same.
		os.WriteFile(m+"/usr/touched", []byte("usr/touched"), 0o644),
	)
	var st unix.Stat_t
	must(t, unix.Stat(low+"/usr/touched", &st), unix.UtimesNanoAt(unix.AT_FDCWD, m+"/usr/touched", []unix.Timespec{st.Atim, st.Mtim}, 0))
	d := o.diff(t, low)
	d.Made = []string{"proc", ".dockerenv", "data/volume", "etc/hosts", "used", "etc/mtab", "dev/shm"}
	want := []string{
		"C /etc", "C /etc/deep", "C /etc/deep/er", "C /etc/link", "C /etc/passwd", "A /new", "A /new/deep", "A /sock",
		"C /srv", "C /srv/sub", "A /used", "A /used/file",
		"C /usr", "C /usr/again", "D /usr/again/a", "C /usr/again/b", "C /usr/emptied", "D /usr/emptied/a", "D /usr/emptied/b", "A /usr/emptied/c",
		"D /usr/gone", "C /usr/kind", "A /usr/kind/in",
	}
	if diff := cmp.Diff(want, changesOf(t, d)); diff != "" {
		t.Errorf("by the upper directory:\n%s", diff)
	}
	whole := Diff{Whole: opened(t, m), Below: d.Below, Made: d.Made}
	if diff := cmp.Diff(want, changesOf(t, whole)); diff != "" {
		t.Errorf("by comparing the trees:\n%s", diff)
	}
	var got []string
	for _, line := range entriesOf(t, layerOf(t, d)) {
		name, _, _ := strings.Cut(line, " ")
		got = append(got, name)
	}
	if diff := cmp.Diff([]string{
		"etc/", "etc/deep/", "etc/deep/er/", "etc/link", "etc/passwd", "new/", "new/deep/", "srv/", "srv/sub", "used/", "used/file",
		"usr/", "usr/again/", "usr/again/.wh.a", "usr/again/b", "usr/emptied/", "usr/emptied/.wh..wh..opq", "usr/emptied/c", "usr/.wh.gone", "usr/kind/", "usr/kind/in",
	}, got); diff != "" {
		t.Errorf("the layer holds:\n%s", diff)
	}
	if !bytes.Equal(layerOf(t, d), layerOf(t, whole)) {
		t.Error("the two ways make two layers")
	}
}

// A place to mount on is found by the links that lead to it.
func TestChangesBehindLinks(t *testing.T) {
	testutil.RequireRoot(t)
	low := t.TempDir()
	must(t, os.MkdirAll(low+"/usr/sbin", 0o755), os.Symlink("usr/sbin", low+"/sbin"), os.Symlink("/../sbin/../../usr", low+"/absolute"),
		os.Symlink("loop", low+"/loop"), os.WriteFile(low+"/file", nil, 0o644))
	o := mounted(t, low)
	must(t, os.WriteFile(o.merged+"/sbin/docker-init", nil, 0o755), os.MkdirAll(o.merged+"/usr/deep/volume", 0o755), os.WriteFile(o.merged+"/usr/own", nil, 0o644))
	d := o.diff(t, low)
	d.Made = []string{"sbin/docker-init", "absolute/deep/volume", "loop/x", "file/x", "none/x"}
	if got := fmt.Sprint(changesOf(t, d)); got != "[C /usr A /usr/own]" {
		t.Error(got)
	}
	for name, want := range map[string]string{
		"sbin/docker-init": "usr/sbin/docker-init", "absolute/deep/volume": "usr/deep/volume", "file/x": "file/x", "none/x/y": "none/x/y", "sbin/../x": "usr/x", "": "",
	} {
		if got, err := d.Tree().Real(name); err != nil || got != want {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
}

func TestNoChanges(t *testing.T) {
	testutil.RequireRoot(t)
	low := t.TempDir()
	write(t, low+"/etc/passwd", "x")
	must(t, os.Link(low+"/etc/passwd", low+"/etc/other"))
	o := mounted(t, low)
	copied := t.TempDir()
	if out, err := exec.Command("cp", "-a", low+"/.", copied).CombinedOutput(); err != nil {
		t.Fatalf("cp: %s", out)
	}
	for name, d := range map[string]Diff{"overlay": o.diff(t, low), "copy": {Whole: opened(t, copied), Below: opened(t, low)}, "empty": {}} {
		if got := changesOf(t, d); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
		if n, err := d.WriteLayer(context.Background(), &bytes.Buffer{}, WriteOptions{}); n != 0 || err != nil {
			t.Errorf("%s: %d entries, %v", name, n, err)
		}
	}
}

// Size and time are no proof that a file is the same.
func TestChangesOfContentAlone(t *testing.T) {
	testutil.RequireRoot(t)
	a, b := t.TempDir(), t.TempDir()
	when := time.Unix(1e9, 0)
	for dir, text := range map[string]string{a: "12345", b: "12354"} {
		write(t, dir+"/file", text)
		write(t, dir+"/same", "same")
		must(t, os.Chtimes(dir+"/file", when, when), os.Chtimes(dir+"/same", when, when))
	}
	must(t, unix.Lsetxattr(b+"/same", "user.x", []byte("1"), 0))
	d := Diff{Whole: opened(t, b), Below: opened(t, a)}
	if got := fmt.Sprint(changesOf(t, d)); got != "[C /file C /same]" {
		t.Error(got)
	}
	must(t, unix.Lremovexattr(b+"/same", "user.x"))
	if got := fmt.Sprint(changesOf(t, d)); got != "[C /file]" {
		t.Error(got)
	}
}

// A name more for a file of the layers below brings the file along, so that
// they are linked above too.
func TestLayerKeepsNewHardLinks(t *testing.T) {
	testutil.RequireRoot(t)
	low := t.TempDir()
	write(t, low+"/a", "data")
	o := mounted(t, low)
	must(t, os.Link(o.merged+"/a", o.merged+"/b"))
	layer := entriesOf(t, layerOf(t, o.diff(t, low)))
	if len(layer) != 2 || !strings.HasPrefix(layer[0], "a 0 ") || !strings.Contains(layer[1], "-> a ") {
		t.Errorf("the layer is %q", layer)
	}
}

func TestLayerRefusesWhiteoutNames(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/d/.wh.x", "")
	d := Diff{Whole: opened(t, dir)}
	if _, err := d.WriteLayer(context.Background(), &bytes.Buffer{}, WriteOptions{}); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `"/d/.wh.x"`) {
		t.Error(err)
	}
	if got := fmt.Sprint(changesOf(t, d)); got != "[A /d A /d/.wh.x]" {
		t.Error(got)
	}
}

// A file that goes between its comparison and its writing is deleted, and not
// what it was before the container changed it.
func TestLayerOfWhatIsGone(t *testing.T) {
	testutil.RequireRoot(t)
	root := opened(t, t.TempDir())
	var buf bytes.Buffer
	p := newPacker(context.Background(), &buf, WriteOptions{})
	for _, v := range []difference{{path: "a", kind: Modified}, {path: "b", kind: Added}} {
		v.at, v.base = int(root[0].Fd()), v.path
		must(t, p.difference(v))
	}
	must(t, p.tar.close())
	if got := entriesOf(t, buf.Bytes()); len(got) != 1 || !strings.Contains(got[0], ".wh.a") {
		t.Errorf("the layer has %v", got)
	}
}

// Deep directories in many layers are refused before the daemon has no descriptor
// left.
func TestManyDeepLayers(t *testing.T) {
	testutil.RequireRoot(t)
	defer func(old int) { maxOpen = old }(maxOpen)
	const layers, levels = 5, 8
	var dirs []string
	for range layers {
		dirs = append(dirs, t.TempDir())
		write(t, dirs[len(dirs)-1]+"/"+strings.Repeat("d/", levels)+"f", "")
		write(t, dirs[len(dirs)-1]+"/side/by/side/f", "")
	}
	tree := opened(t, dirs...)
	all := Diff{Below: opened(t, dirs[1:]...), Whole: tree}
	for needs, read := range map[int]func() error{
		layers * levels:         func() error { return Write(context.Background(), io.Discard, tree, WriteOptions{}) },
		(2*layers - 1) * levels: func() error { return all.Changes(context.Background(), func(Change) error { return nil }) },
	} {
		maxOpen = needs
		must(t, read())
		maxOpen--
		if err := read(); !errors.Is(err, fault.Invalid) {
			t.Errorf("with %d of %d descriptors: %v", maxOpen, needs, err)
		}
	}
}

// What could not be unpacked again is refused before anything is written of it.
func TestLayerRefusesTerabytesOfHoles(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	write(t, root+"/a", "")
	must(t, os.Truncate(root+"/a", maxHoles/2))
	d := Diff{Whole: opened(t, root)}
	var layer bytes.Buffer
	_, err := d.WriteLayer(context.Background(), &layer, WriteOptions{})
	must(t, err)
	write(t, root+"/b", "")
	must(t, os.Truncate(root+"/b", maxHoles/2+1<<20))
	if _, err := d.WriteLayer(context.Background(), io.Discard, WriteOptions{}); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `"/b"`) {
		t.Error(err)
	}
	must(t, Write(context.Background(), io.Discard, d.Whole, WriteOptions{}))
}

// A container can make directories one in the other without end. They are refused
// where no path leads any more, before they have taken the memory of the daemon.
func TestChangesOfDeepTrees(t *testing.T) {
	testutil.RequireRoot(t)
	const levels = 3000
	root := inMemory(t)
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(at, "d", 0o755))
		next, err := unix.Openat(at, "d", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err, unix.Close(at))
		at = next
	}
	must(t, unix.Close(at))
	for _, d := range []Diff{{Upper: opened(t, root)[0], Below: opened(t, t.TempDir())}, {Whole: opened(t, root)}} {
		count := 0
		err := d.Changes(context.Background(), func(Change) error { count++; return nil })
		if !errors.Is(err, fault.Invalid) || count > maxName/2 {
			t.Errorf("%d of %d levels are told, %v", count, levels, err)
		}
	}
}

// mutate changes the tree below root as the random numbers say.
func mutate(t testing.TB, root string, next func(n int) int, steps int) {
	t.Helper()
	name := func() string {
		parts := make([]string, 1+next(3))
		for i := range parts {
			parts[i] = string(rune('a' + next(4)))
		}
		return root + "/" + strings.Join(parts, "/")
	}
	for range steps {
		at := name()
		switch next(9) {
		case 0, 1, 2:
			if os.MkdirAll(filepath.Dir(at), 0o755) == nil {
				_ = os.WriteFile(at, []byte(strings.Repeat("x", next(3))+string(rune('0'+next(3)))), 0o644)
			}
		case 3:
			_ = os.MkdirAll(at, 0o755)
		case 4, 5:
			_ = os.RemoveAll(at)
		case 6:
			_ = os.Symlink(string(rune('a'+next(2))), at)
		case 7:
			_ = os.Link(name(), at)
		case 8:
			if st, err := os.Lstat(at); err == nil && st.Mode()&os.ModeSymlink == 0 {
				_ = os.Chmod(at, os.FileMode(0o700+next(8)))
			}
		}
		if st, err := os.Lstat(at); err == nil && !st.IsDir() { // times that occur twice
			when := []unix.Timespec{{Sec: int64(next(2))}, {Sec: int64(next(2))}}
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at, when, unix.AT_SYMLINK_NOFOLLOW))
		}
	}
}

// checkApplied changes a tree at random through an overlay and tells whether
// the layer, put on top of what was there, gives the changed tree, and whether
// both ways of finding the changes agree.
func checkApplied(t *testing.T, next func(n int) int) {
	t.Helper()
	base := t.TempDir()
	mutate(t, base, next, 10)
	first := mounted(t, base)
	mutate(t, first.merged, next, 12)
	lower := []string{first.upper, base}
	o := mounted(t, lower...)
	mutate(t, o.merged, next, 12)

	want := entriesOf(t, written(t, opened(t, o.merged), WriteOptions{}))
	if diff := cmp.Diff(want, entriesOf(t, written(t, opened(t, append([]string{o.upper}, lower...)...), WriteOptions{}))); diff != "" {
		t.Fatalf("the stacked directories are not what overlayfs makes of them:\n%s", diff)
	}
	d := o.diff(t, lower...)
	layer := layerOf(t, d)
	applied := t.TempDir()
	_, err := extractWith(t, applied, bytes.NewReader(layer), OverlayWhiteouts)
	must(t, err)
	got := entriesOf(t, written(t, opened(t, append([]string{applied}, lower...)...), WriteOptions{}))
	if len(layer) == 1024 { // no entry for the root either
		got[0] = want[0]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("the layer makes another tree:\n%s\nof the changes %q", diff, changesOf(t, d))
	}
	whole := Diff{Whole: opened(t, o.merged), Below: d.Below}
	if diff := cmp.Diff(withoutLinks(t, layer), withoutLinks(t, layerOf(t, whole))); diff != "" {
		t.Fatalf("comparing the trees makes another layer:\n%s", diff)
	}
}

// withoutLinks lists a layer without the files that have several names, which
// an overlay's upper directory cannot tell from changed ones.
func withoutLinks(t testing.TB, layer []byte) (list []string) {
	linked := map[string]bool{}
	for _, line := range entriesOf(t, layer) {
		name, rest, _ := strings.Cut(line, " ")
		if target, _, _ := strings.Cut(rest[strings.Index(rest, "-> ")+3:], " "); rest[0] == '1' {
			linked[name], linked[target] = true, true
		}
	}
	for _, line := range entriesOf(t, layer) {
		if name, _, _ := strings.Cut(line, " "); !linked[name] {
			list = append(list, line)
		}
	}
	return list
}

func TestChangesApplied(t *testing.T) {
	testutil.RequireRoot(t)
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { checkApplied(t, r.IntN) }) {
			return
		}
	}
}

func FuzzChangesApplied(f *testing.F) {
	testutil.RequireRoot(f)
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08some changes of a tree"))
	f.Fuzz(func(t *testing.T, data []byte) {
		checkApplied(t, func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := int(data[0])
			data = data[1:]
			return b % n
		})
	})
}

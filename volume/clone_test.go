package volume

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// killedEnv names the data root of a process that copies volumes until it is killed.
const killedEnv = "TARE_TEST_COPIES"

func TestMain(m *testing.M) {
	if root := os.Getenv(killedEnv); root != "" {
		copyForever(root)
	}
	os.Exit(testutil.OwnMounts(m))
}

// tree fills a directory with what a copy must keep.
func tree(t *testing.T, dir string) {
	t.Helper()
	for i := range 30 {
		sub := fmt.Sprintf("%s/d%d", dir, i)
		if err := errors.Join(os.MkdirAll(sub, 0o755), os.WriteFile(sub+"/file", []byte(strings.Repeat("x", i)), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	sparse, err := os.Create(dir + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	_, err = sparse.WriteAt([]byte("end"), 4<<20)
	old := time.Unix(1_000_000_000, 5)
	err = errors.Join(err, sparse.Close(), os.Link(dir+"/d1/file", dir+"/twice"), os.Symlink("/etc/passwd", dir+"/link"), unix.Mkfifo(dir+"/fifo", 0o620),
		unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mknod(dir+"/d3/whiteout", unix.S_IFCHR, 0),
		unix.Setxattr(dir+"/d2/file", "user.note", []byte("n"), 0), unix.Setxattr(dir+"/d3", "trusted.overlay.opaque", []byte("y"), 0),
		os.WriteFile(dir+"/.wh.name", []byte("no layer"), 0o600),
		os.Chown(dir+"/d4", 7, 8), os.Chown(dir, 5, 6), os.Chmod(dir, os.ModeSticky|0o770), os.Chtimes(dir+"/d5", old, old), os.Chtimes(dir, old, old))
	if err != nil {
		t.Fatal(err)
	}
}

// listing has foreign programs tell of a tree.
func listing(t *testing.T, dir string) string {
	t.Helper()
	out := ""
	for _, command := range []string{
		`find . -type d -printf '%P %m %U %G %t\n' -o -printf '%P %m %U %G %n %l %t %y %s\n' | sort`, "getfattr -R -h -d -m - . 2>&1", "find . -type f | sort | xargs sha256sum", `find . -type c -exec stat -c '%n %t:%T' {} + | sort`,
	} {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = dir
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, said)
		}
		out += string(said)
	}
	return out
}

func TestClone(t *testing.T) {
	testutil.RequireRoot(t)
	ctx := t.Context()
	for fs, root := range map[string]string{"here": t.TempDir(), "btrfs": testutil.Btrfs(t), "xfs": testutil.XFS(t)} {
		s := open(t, root)
		s.mustCreate(t, CreateRequest{Name: "data", Labels: map[string]string{"com.docker.compose.project": "p"}})
		tree(t, s.data("data"))
		want := listing(t, s.data("data"))
		v, err := s.Clone(ctx, "data", CloneRequest{Name: "copy", Labels: map[string]string{"a": "b"}})
		if err != nil {
			t.Fatalf("%s: %v", fs, err)
		}
		if got := listing(t, v.Mountpoint); got != want {
			t.Errorf("%s: the copy is\n%s\nof\n%s", fs, got, want)
		}
		if len(v.Labels) != 1 || v.Labels["a"] != "b" {
			t.Errorf("%s: its labels are %v", fs, v.Labels)
		}
		snap, err := s.Clone(ctx, "copy", CloneRequest{Snapshot: true})
		if err != nil {
			t.Fatalf("%s: %v", fs, err)
		}
		if r, _ := s.lookup(snap.Name); !strings.HasPrefix(snap.Name, "copy-2") || !r.Snapshot {
			t.Errorf("%s: the snapshot is %+v", fs, r)
		}
		for name, kind := range map[string]fault.Kind{"data": fault.Conflict, "copy": fault.Conflict, "a": fault.Invalid} {
			if _, err := s.Clone(ctx, "data", CloneRequest{Name: name}); !errors.Is(err, kind) {
				t.Errorf("%s: a copy named %s: %v", fs, name, err)
			}
		}
		if _, err := s.Clone(ctx, "none", CloneRequest{Name: "more"}); !errors.Is(err, fault.NotFound) {
			t.Errorf("%s: a copy of nothing: %v", fs, err)
		}
		for _, name := range []string{"data", "copy", snap.Name} {
			if err := s.Remove(ctx, name, false); err != nil {
				t.Errorf("%s: %v", fs, err)
			}
		}
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(s.root); err != nil || len(left) > 0 {
			t.Errorf("%s: left are %v, %v", fs, left, err)
		}
	}
}

// What is mounted is copied too, and becomes a directory.
func TestCloneOfMount(t *testing.T) {
	testutil.RequireRoot(t)
	ctx, outside := t.Context(), t.TempDir()
	s := open(t, t.TempDir())
	if err := os.WriteFile(outside+"/file", []byte("mounted"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.mustCreate(t, CreateRequest{Name: "data", Options: map[string]string{"type": "none", "o": "bind", "device": outside}})
	v, err := s.Clone(ctx, "data", CloneRequest{Name: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(v.Mountpoint + "/file"); string(data) != "mounted" || len(v.Options) > 0 {
		t.Error(string(data), v.Options, err)
	}
	if is, err := isMounted(s.data("data")); is || err != nil {
		t.Error("it stays mounted", err)
	}
}

// What power loss cut off is told of, or gone when it was of no use yet.
func TestCopyLostByPower(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	s := open(t, root)
	s.mustCreate(t, CreateRequest{Name: "data"})
	for _, name := range []string{"here", "empty", "same"} {
		if _, err := s.Clone(ctx, "data", CloneRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(s.root + "/*/fresh"); len(left) > 0 {
		t.Errorf("still marked: %v", left)
	}
	err := errors.Join(os.WriteFile(s.dir("here")+"/fresh", []byte("another boot"), 0o600), os.WriteFile(s.dir("empty")+"/fresh", []byte("another boot"), 0o600),
		os.WriteFile(s.dir("empty")+"/volume.json", nil, 0o600), os.WriteFile(s.dir("same")+"/fresh", []byte(bootID()), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	s, err = Open(ctx, Config{DataRoot: root, Events: &event.Log{}, Log: slog.New(slog.NewTextHandler(&told, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"here": true, "empty": false, "same": true} {
		if _, ok := s.lookup(name); ok != want {
			t.Errorf("%s: %v", name, ok)
		}
	}
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if strings.Count(told.String(), "the power was lost") != 1 || !strings.Contains(told.String(), "volume=here") {
		t.Errorf("told: %s", told.String())
	}
	if _, err := os.Stat(s.dir("same") + "/fresh"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// freezer notes who stands still.
type freezer struct {
	still map[string]bool
	told  []string
}

func (f *freezer) Pause(_ context.Context, id string) error {
	if id == "stopped" || f.still[id] {
		return fault.New(fault.Conflict, "it does not run")
	}
	f.still[id] = true
	f.told = append(f.told, "pause "+id)
	return nil
}

func (f *freezer) Unpause(_ context.Context, id string) error {
	delete(f.still, id)
	f.told = append(f.told, "unpause "+id)
	return nil
}

func TestFreeze(t *testing.T) {
	testutil.RequireRoot(t)
	ctx, root := t.Context(), t.TempDir()
	s := open(t, root)
	f := &freezer{still: map[string]bool{}}
	if err := s.SetFreezer(ctx, f); err != nil {
		t.Fatal(err)
	}
	s.SetUsers(func() map[string][]string { return map[string][]string{"data": {"one", "stopped"}} })
	s.mustCreate(t, CreateRequest{Name: "data"})
	if _, err := s.Clone(ctx, "data", CloneRequest{Name: "plain"}); err != nil || len(f.told) > 0 {
		t.Error(f.told, err)
	}
	if _, err := s.Clone(ctx, "data", CloneRequest{Name: "still", Freeze: true}); err != nil || !slices.Equal(f.told, []string{"pause one", "unpause one"}) {
		t.Error(f.told, err)
	}
	e, err := s.OpenExport(ctx, "data", true)
	if err != nil || len(f.told) != 4 || len(f.still) > 0 {
		t.Fatal(f.told, err)
	}
	var b bytes.Buffer
	if err := e.Write(ctx, &b); err != nil || b.Len() == 0 {
		t.Error(err)
	}
	e.Close()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	// A daemon that died while containers stood still.
	if err := os.WriteFile(filepath.Join(s.root, ".frozen-1"), []byte(`["one"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	f.told = nil
	if err := open(t, root).SetFreezer(ctx, f); err != nil || !slices.Equal(f.told, []string{"unpause one"}) {
		t.Error(f.told, err)
	}
	if left, _ := filepath.Glob(s.root + "/.[a-z]*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Two copies at a time do not let a container go on too early, and who stood still
// before is not listed: a daemon that dies must not let them go on.
func TestFreezeTwice(t *testing.T) {
	ctx := t.Context()
	s := open(t, t.TempDir())
	f := &freezer{still: map[string]bool{"paused": true}}
	if err := s.SetFreezer(ctx, f); err != nil {
		t.Fatal(err)
	}
	s.SetUsers(func() map[string][]string { return map[string][]string{"data": {"one", "paused"}} })
	thaw, err := s.freeze(ctx, "data", true)
	if err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(s.root, frozenPrefix+"*"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if ids, err := os.ReadFile(list[0]); err != nil || string(ids) != `["one"]` {
		t.Errorf("listed are %s, %v", ids, err)
	}
	waiting, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.freeze(waiting, "data", true); !errors.Is(err, context.Canceled) {
		t.Errorf("a second one at the same time: %v", err)
	}
	thaw()
	if thaw, err = s.freeze(ctx, "data", true); err != nil {
		t.Fatal(err)
	}
	thaw()
	if !slices.Equal(f.told, []string{"pause one", "unpause one", "pause one", "unpause one"}) {
		t.Error(f.told)
	}
}

func TestRename(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	s := open(t, root)
	v, err := s.Create(ctx, CreateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.Mountpoint+"/file", []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err = s.Rename(ctx, v.Name, "named"); err != nil || v.Name != "named" {
		t.Fatal(v, err)
	}
	if _, anonymous := v.Labels[AnonymousLabel]; anonymous {
		t.Error("it is still without a name of its own")
	}
	s.mustCreate(t, CreateRequest{Name: "other", Holder: "c1"})
	for what, err := range map[string]error{
		"taken": second(s.Rename(ctx, "named", "other")), "used": second(s.Rename(ctx, "other", "new")),
	} {
		if !errors.Is(err, fault.Conflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := second(s.Rename(ctx, "none", "new")); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	// A crash between the record and the name.
	old, _ := s.lookup("named")
	half := old
	half.Name, half.Was = "half", "named"
	if err := writeRecord(s.dir("named"), half, false); err != nil {
		t.Fatal(err)
	}
	again := open(t, root)
	if _, ok := again.lookup("half"); ok {
		t.Error("half a rename counts")
	}
	if v, err = again.Inspect(ctx, "named"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(v.Mountpoint + "/file"); string(data) != "kept" {
		t.Error(string(data), err)
	}
	if _, err := again.Rename(ctx, "named", "back"); err != nil {
		t.Error(err)
	}
	if _, err := open(t, root).Inspect(ctx, "back"); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func export(t *testing.T, s *Service, name string) []byte {
	t.Helper()
	e, err := s.OpenExport(t.Context(), name, false)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var b bytes.Buffer
	if err := e.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// An export becomes the same volume again, by import and by tar(1), which makes
// archives that import reads.
func TestExportImport(t *testing.T) {
	testutil.RequireRoot(t)
	ctx, root := t.Context(), t.TempDir()
	s := open(t, root)
	s.mustCreate(t, CreateRequest{Name: "data"})
	tree(t, s.data("data"))
	want := listing(t, s.data("data"))
	archive := export(t, s, "data")
	if len(archive) > 1<<20 {
		t.Errorf("the holes are written out: %d bytes", len(archive))
	}
	v, err := s.Import(ctx, ImportRequest{Name: "again", Labels: map[string]string{"a": "b"}}, bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, v.Mountpoint); got != want {
		t.Errorf("it became\n%s\nof\n%s", got, want)
	}
	foreign := t.TempDir()
	untar := exec.Command("tar", "-xpf", "-", "--xattrs", "--xattrs-include=*", "-C", foreign)
	untar.Stdin = bytes.NewReader(archive)
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := listing(t, foreign); got != want {
		t.Errorf("for tar it is\n%s\nof\n%s", got, want)
	}
	packed, err := exec.Command("tar", "-cSz", "--xattrs", "--xattrs-include=*", "-C", foreign, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if v, err = s.Import(ctx, ImportRequest{Name: "foreign"}, bytes.NewReader(packed)); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, v.Mountpoint); got != want {
		t.Errorf("from tar it became\n%s\nof\n%s", got, want)
	}
	for n := 0; n < 8000; n += 100 { // wherever it is cut off, also between two entries
		if err := second(s.Import(ctx, ImportRequest{Name: "torn"}, bytes.NewReader(archive[:n]))); !errors.Is(err, fault.Invalid) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
	}
	for _, n := range []int{512, 1024, 4096, len(archive) - 1024} {
		if err := second(s.Import(ctx, ImportRequest{Name: "torn"}, bytes.NewReader(archive[:n]))); !errors.Is(err, fault.Invalid) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
	}
	if err := second(s.Import(ctx, ImportRequest{Name: "again"}, bytes.NewReader(archive))); !errors.Is(err, fault.Conflict) {
		t.Errorf("over a volume: %v", err)
	}
}

// What is no good archive becomes no volume, and nothing outside of it.
func TestImportHostile(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	s := open(t, root)
	whole := func(entries ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range entries {
			h.Mode = 0o644
			h.Uid, h.Gid = os.Getuid(), os.Getgid()
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		return b.Bytes()
	}
	good := whole(tar.Header{Name: "a", Typeflag: tar.TypeReg}, tar.Header{Name: "b", Typeflag: tar.TypeReg})
	zeros := append(whole(tar.Header{Name: "z", Typeflag: tar.TypeReg, Size: 2048})[:512], make([]byte, 2048)...)
	for what, data := range map[string][]byte{
		"nothing":    nil,
		"no archive": []byte(strings.Repeat("words ", 1000)),
		"truncated":  good[:700],
		"after 0":    zeros, // as if they were the end
		"climbing":   whole(tar.Header{Name: "../out", Typeflag: tar.TypeReg}),
		"by a link":  whole(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../../.."}, tar.Header{Name: "l/../../../out", Typeflag: tar.TypeReg}),
		"link out":   whole(tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "../../other/_data/secret"}),
		"the root":   whole(tar.Header{Name: ".", Typeflag: tar.TypeReg}),
		"the store":  whole(tar.Header{Name: "f", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.trusted.tare.layer": "x"}}),
	} {
		if err := second(s.Import(ctx, ImportRequest{Name: "bad"}, bytes.NewReader(data))); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := second(s.Import(ctx, ImportRequest{Name: "bad", Options: map[string]string{"type": "bind"}}, bytes.NewReader(good))); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(s.root); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 {
		t.Errorf("beside the volumes are %v, %v", left, err)
	}
}

// copyForever clones, imports and renames the volume "data" until somebody kills it.
func copyForever(root string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{DataRoot: root, Events: &event.Log{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	archive, err := os.ReadFile(root + "/archive")
	if err != nil {
		panic(err)
	}
	for i := 0; ; i++ {
		_, a := s.Clone(ctx, "data", CloneRequest{Name: fmt.Sprint("clone", i)})
		_, b := s.Import(ctx, ImportRequest{Name: fmt.Sprint("import", i)}, bytes.NewReader(archive))
		_, c := s.Rename(ctx, fmt.Sprint("import", i), fmt.Sprint("renamed", i))
		if err := errors.Join(a, b, c); err != nil {
			panic(err)
		}
		fmt.Println(i)
	}
}

// Whenever the daemon is killed, the volume that is copied is whole and so is each
// copy that has a name, and nothing else is left.
func TestKilledWhileCopying(t *testing.T) {
	testutil.RequireRoot(t)
	ctx, root := t.Context(), t.TempDir()
	s := open(t, root)
	s.mustCreate(t, CreateRequest{Name: "data"})
	tree(t, s.data("data"))
	want := listing(t, s.data("data"))
	if err := os.WriteFile(root+"/archive", export(t, s, "data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), killedEnv+"="+root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // once round
			t.Fatalf("%v: %s", err, said.String())
		}
		time.Sleep(rand.N(40 * time.Millisecond)) // a moment of no choice of ours
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		s := open(t, root)
		names, err := os.ReadDir(s.root)
		if err != nil || len(names) < 3 {
			t.Fatal(names, err)
		}
		for _, e := range names {
			v, err := s.Inspect(ctx, e.Name())
			if err != nil {
				t.Errorf("%s: %v", e.Name(), err)
				continue
			}
			if got := listing(t, v.Mountpoint); got != want {
				t.Errorf("%s is\n%s\nand not\n%s", e.Name(), got, want)
			}
			if e.Name() == "data" {
				continue
			}
			if err := s.Remove(ctx, e.Name(), false); err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestSize(t *testing.T) {
	testutil.RequireRoot(t)
	ctx := t.Context()
	s := open(t, testutil.Btrfs(t))
	s.mustCreate(t, CreateRequest{Name: "data", Options: map[string]string{"size": "8m"}})
	if _, err := s.Clone(ctx, "data", CloneRequest{Name: "copy"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data", "copy"} {
		out, err := exec.Command("dd", "if=/dev/zero", "of="+s.data(name)+"/file", "bs=1M", "count=32", "conv=fsync").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "Disk quota exceeded") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	image := t.TempDir()
	tree(t, image)
	want := listing(t, image)
	s.mustCreate(t, CreateRequest{Name: "filled", Options: map[string]string{"size": "8m"}})
	from, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if err := s.Populate(ctx, "filled", "c1", from); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, s.data("filled")); got != want {
		t.Errorf("filled it is\n%s\nof\n%s", got, want)
	}
	if err := second(s.Create(ctx, CreateRequest{Name: "bad", Options: map[string]string{"size": "1m", "type": "tmpfs", "device": "tmpfs"}})); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	for _, bad := range []string{"much", "-1"} {
		if err := second(s.Create(ctx, CreateRequest{Name: "bad", Options: map[string]string{"size": bad}})); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	s = open(t, testutil.Tmpfs(t))
	err = second(s.Create(ctx, CreateRequest{Name: "data", Options: map[string]string{"size": "8m"}}))
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "quota size requested but no quota support: ") || !strings.Contains(err.Error(), "tmpfs") {
		t.Error(err)
	}
}

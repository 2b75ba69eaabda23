package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"
)

func TestSharing(t *testing.T) {
	s := newShelf(t.TempDir(), "mounts")
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	hold := func(sharing pb.CacheSharingOpt) (string, func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // who would have to wait gives up
		name, release, err := s.hold(ctx, "k", sharing)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		return name, release
	}
	one, done := hold(pb.CacheSharingOpt_SHARED)
	two, done2 := hold(pb.CacheSharingOpt_SHARED)
	if one != "k.0" || two != one {
		t.Errorf("two share %q and %q", one, two)
	}
	if name, _ := hold(pb.CacheSharingOpt_LOCKED); name != "" {
		t.Errorf("locked %q while it is shared", name)
	}
	own, done3 := hold(pb.CacheSharingOpt_PRIVATE)
	if own != "k.1" {
		t.Errorf("one of its own: %q", own)
	}
	if ok, _ := s.drop("k.0"); ok {
		t.Error("one in use was removed")
	}
	done()
	done2()
	locked, done4 := hold(pb.CacheSharingOpt_LOCKED)
	if locked != "k.0" {
		t.Errorf("locked %q", locked)
	}
	if name, _ := hold(pb.CacheSharingOpt_SHARED); name != "" {
		t.Errorf("shares the locked %q", name)
	}
	done3()
	done4()
}

// A directory of a repository is looked for in the repository.
func TestGitSubdirectory(t *testing.T) {
	work := filepath.Join(t.TempDir(), "checkout")
	for _, dir := range []string{work + "/sub/deep", work + "/.git/hooks", filepath.Dir(work) + "/outside"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"inside": "sub", "out": "../outside", "host": "/etc", "own": ".git"} {
		if err := os.Symlink(target, work+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"": work, "/": work, "sub/deep": work + "/sub/deep", "inside/deep": work + "/sub/deep", "sub/..": work,
		"../outside": "", "out": "", "host": "", "sub/../../outside": "", ".git/hooks": "", "own/hooks": ""} {
		got, err := within(work, name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
}

// What the step made of the place of a mount is not followed, and what is not
// empty stays.
func TestStubs(t *testing.T) {
	host, dir := t.TempDir(), t.TempDir()
	for _, d := range []string{host + "/empty", dir + "/made/for/mount", dir + "/kept/full"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{dir + "/kept/full/file", dir + "/stub", dir + "/kept/stub"} {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/written", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(host, dir+"/swapped"); err != nil {
		t.Fatal(err)
	}
	top, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	then := []unix.Timespec{{Sec: 1000}, {Sec: 1000}}
	stub{"made/for/mount", 2, then}.clean(top, true)
	for _, name := range []string{"stub", "written", "kept/full", "kept/stub", "swapped/empty", "swapped", "missing/x"} {
		stub{name, 0, then}.clean(top, true)
	}
	for name, want := range map[string]bool{"made": false, "stub": false, "written": true, "kept/full/file": true, "kept/stub": false, "swapped": true} {
		if _, err := os.Lstat(dir + "/" + name); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(host + "/empty"); err != nil {
		t.Error("a directory of the host went:", err)
	}
	if st, err := os.Stat(dir + "/kept"); err != nil || st.ModTime().Unix() != 1000 {
		t.Errorf("the directory changed: %v %v", st.ModTime(), err)
	}
}

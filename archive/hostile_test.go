package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/deltree"
	"github.com/tarehq/tare/internal/testutil"
)

const maxAttribute = 65536

func hasACL(t *testing.T, path, name string) bool {
	t.Helper()
	n, err := unix.Lgetxattr(path, name, make([]byte, maxAttribute))
	if err != nil && err != unix.ENODATA {
		t.Fatal(err)
	}
	return n > 0
}

// What is made in a directory with a default access list has the lists that
// its own entry has, none when it has none, as with GNU tar.
func TestDefaultACLIsNotInherited(t *testing.T) {
	testutil.RequireRoot(t)
	giving := func(name string) entry {
		e := dir(name)
		e.hdr.PAXRecords = map[string]string{"SCHILY.acl.default": "user::rwx,user:joe:rwx:1000,group::r-x,mask::rwx,other::r-x"}
		return e
	}
	own := file("d/own", "x")
	own.hdr.PAXRecords = map[string]string{"SCHILY.acl.access": "user::rw-,user:ann:r--:1001,group::r--,mask::r--,other::---"}
	fifo := entry{tar.Header{Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o640}, ""}
	below := []entry{file("d/f", "1"), dir("d/sub"), file("d/implied/f", "2"), fifo, symlink("d/link", "f"), own}
	check := func(root string) {
		t.Helper()
		for name, mode := range map[string]uint32{"d/f": 0o644, "d/sub": 0o755, "d/implied": 0o755, "d/implied/f": 0o644, "d/fifo": 0o640} {
			var st unix.Stat_t
			if err := unix.Lstat(root+"/"+name, &st); err != nil || st.Mode&0o7777 != mode {
				t.Errorf("%s has the mode %o, %v", name, st.Mode, err)
			}
			if hasACL(t, root+"/"+name, aclAccess) || hasACL(t, root+"/"+name, aclDefault) && name != "d/link" {
				t.Errorf("%s has an access list", name)
			}
		}
		if !hasACL(t, root+"/d", aclDefault) || !hasACL(t, root+"/d/own", aclAccess) {
			t.Error("the lists of the archive are missing")
		}
	}
	root := t.TempDir()
	if err := extract(t, root, pack(t, append([]entry{giving("d/")}, below...)...)); err != nil {
		t.Fatal(err)
	}
	check(root)
}

func TestReservedAttributes(t *testing.T) {
	testutil.RequireRoot(t)
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.whiteout", "trusted.tare.layer"} {
		for _, e := range []entry{dir("./"), dir("d"), file("f", ""), symlink("l", "f")} {
			e.hdr.PAXRecords = map[string]string{paxXattr + name: "x"}
			if err := extract(t, t.TempDir(), pack(t, e)); !errors.Is(err, fault.Invalid) {
				t.Errorf("%s of %s: %v", name, e.hdr.Name, err)
			}
		}
	}
}

// deep are entries that make a tree of links times 600 levels: the paths of the
// lowest would be too long, the links lead there.
func deep(links int) []entry {
	var entries []entry
	at := ""
	for range links {
		for i := range 600 {
			entries = append(entries, dir(at+strings.Repeat("d/", i+1)))
		}
		entries = append(entries, symlink(at+"l", strings.Repeat("d/", 599)+"d"))
		at += "l/"
	}
	return entries
}

// A tree deeper than the process may open files is made and removed again, by
// a later entry and as a whole.
func TestDeepTrees(t *testing.T) {
	testutil.RequireRoot(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	base := inMemory(t)
	entries := append(deep(8), file("d", "instead"))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	if err := extract(t, base, pack(t, entries...)); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, base); got["d"] != "instead" {
		t.Errorf("d is %q", got["d"])
	}
	if err := deltree.Remove(base); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(base); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// Directories that the archive only implies count as its entries do.
func TestManyImpliedDirectories(t *testing.T) {
	testutil.RequireRoot(t)
	defer func(old int) { maxEntries = old }(maxEntries)
	maxEntries = 100
	if err := extract(t, t.TempDir(), pack(t, file(strings.Repeat("d/", 98)+"f", ""))); err != nil {
		t.Error(err)
	}
	if err := extract(t, t.TempDir(), pack(t, file(strings.Repeat("d/", 200)+"f", ""))); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestHugeIDsAndTimes(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	for i, kind := range []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeFifo, tar.TypeChar} {
		e := entry{tar.Header{Name: fmt.Sprint("e", i), Typeflag: kind, Uid: 1<<32 - 2, Gid: 1 << 31, Mode: 0o600, Devmajor: 4095, Devminor: 1<<20 - 1,
			Format: tar.FormatGNU}, ""}
		if kind == tar.TypeSymlink {
			e.hdr.Linkname = "x"
		}
		if err := extract(t, root, pack(t, e)); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(root+"/"+e.hdr.Name, &st); err != nil || st.Uid != 1<<32-2 || st.Gid != 1<<31 {
			t.Errorf("%q belongs to %d:%d, %v", kind, st.Uid, st.Gid, err)
		}
		if kind == tar.TypeChar && st.Rdev != unix.Mkdev(4095, 1<<20-1) {
			t.Errorf("the device is %x", st.Rdev)
		}
		for _, id := range []int{1<<32 - 1, 1 << 32, 1 << 40, -1} { // -1 leaves an owner as he is, chown(2)
			e.hdr.Uid, e.hdr.Gid = id, 0
			if err := extract(t, root, pack(t, e)); !errors.Is(err, fault.Invalid) {
				t.Errorf("%q of user %d: %v", kind, id, err)
			}
			e.hdr.Uid, e.hdr.Gid = 0, id
			if err := extract(t, root, pack(t, e)); !errors.Is(err, fault.Invalid) {
				t.Errorf("%q of group %d: %v", kind, id, err)
			}
		}
	}
	late := file("late", "")
	late.hdr.PAXRecords = map[string]string{"mtime": "99999999999.5"}
	early := file("early", "")
	early.hdr.PAXRecords = map[string]string{"mtime": "-1.25"}
	if err := extract(t, root, pack(t, late, early)); err != nil {
		t.Error(err)
	}
	for _, numbers := range [][2]int64{{4096, 0}, {0, 1 << 20}, {-1, 0}} {
		e := entry{tar.Header{Name: "dev", Typeflag: tar.TypeBlock, Devmajor: numbers[0], Devminor: numbers[1], Format: tar.FormatGNU}, ""}
		if err := extract(t, root, pack(t, e)); !errors.Is(err, fault.Invalid) {
			t.Errorf("device %v: %v", numbers, err)
		}
	}
}

// sample makes a tree with all that GNU tar can archive.
func sample(t *testing.T, dir string) {
	t.Helper()
	script := `set -e
mkdir -p bin etc/d "$(printf 'n%.0s' $(seq 150))/$(printf 'm%.0s' $(seq 200))" dev shared
echo text > etc/file; ln etc/file etc/hard; ln -s ../etc/file etc/soft; ln -s /absolute/missing gone; ln etc/soft etc/hardsoft
echo long > "$(printf 'n%.0s' $(seq 150))/$(printf 'm%.0s' $(seq 200))/$(printf 'o%.0s' $(seq 100))"
ln -s "$(printf 'target/%.0s' $(seq 100))" etc/longlink
printf 'a\tb' > "$(printf 'new\nline')"; echo x > "$(printf 'not-utf8-\377')"; : > empty; mkdir "with space"
mknod dev/null c 1 3; mknod dev/sda b 8 0; mknod dev/big c 300 70000; mkfifo dev/pipe
printf head > sparse; truncate -s 5M sparse; printf tail >> sparse; truncate -s 3M holes
head -c 3000000 /dev/urandom > random
echo prog > bin/ping; setcap cap_net_raw+ep bin/ping; echo su > bin/su; chown 12:34 bin/su; chmod 4755 bin/su
setfattr -n user.note -v "some value" etc/file; setfattr -n trusted.note -v 0x0001ff etc/d
setfacl -m u:51000:rw,g:52000:r etc/file; setfacl -d -m u:51000:rwx shared; echo in > shared/file; mkdir shared/dir
setfacl -b shared/file
chown 3000000000:2147483648 empty; chmod 1777 shared; chmod 2750 etc/d; chmod 000 gone 2>/dev/null || true; chmod 000 random
touch -h -d @1000000000.123456789 etc/soft etc/file; touch -d @-5 empty; touch -d @1234567890.5 etc etc/d .
`
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// GNU tar's archives of the same tree, in each format that can hold it, come
// out as GNU tar itself extracts them.
func TestAsGNUTar(t *testing.T) {
	testutil.RequireRoot(t)
	source := t.TempDir()
	sample(t, source)
	for _, format := range []string{"posix", "posix --sparse", "posix --sparse --sparse-version=0.0", "posix --sparse --sparse-version=0.1", "gnu", "gnu --sparse"} {
		t.Run(format, func(t *testing.T) {
			args := append([]string{"-C", source, "--numeric-owner", "-cf", "-"}, strings.Fields("--format="+format)...)
			if !strings.HasPrefix(format, "gnu") { // which has no room for them
				args = append(args, "--xattrs", "--xattrs-include=*", "--acls")
			}
			data, err := exec.Command("tar", append(args, ".")...).Output()
			if err != nil {
				t.Fatal(err)
			}
			sameAsTar(t, data)
		})
	}
}

// sameAsTar compares what Extract makes of the archive with what GNU tar does.
func sameAsTar(t *testing.T, data []byte) {
	t.Helper()
	ours, theirs := inMemory(t), inMemory(t)
	if err := extract(t, ours, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "-C", theirs, "--numeric-owner", "--same-owner", "-p", "--xattrs", "--xattrs-include=*", "--acls", "-xf", "-")
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	same(t, ours, theirs)
}

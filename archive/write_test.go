package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// must ends the test on the first error.
func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// opened is the tree of the directories, topmost first.
func opened(t testing.TB, dirs ...string) Tree {
	t.Helper()
	var tree Tree
	for _, dir := range dirs {
		f, err := os.Open(dir)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		tree = append(tree, f)
	}
	return tree
}

func written(t testing.TB, tree Tree, o WriteOptions) []byte {
	t.Helper()
	var buf bytes.Buffer
	must(t, Write(context.Background(), &buf, tree, o))
	return buf.Bytes()
}

// entriesOf lists a tar's entries with all that they say, but for the times of
// directories.
func entriesOf(t testing.TB, data []byte) []string {
	t.Helper()
	var list []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		when := h.ModTime.UTC().Format(time.RFC3339Nano)
		if h.Typeflag == tar.TypeDir {
			when = ""
		}
		attributes := map[string]string{}
		for k, v := range h.PAXRecords {
			if strings.HasPrefix(k, paxXattr) {
				attributes[k] = v
			}
		}
		list = append(list, fmt.Sprintf("%s %c %o %d:%d %d %s -> %s %d:%d %q %x", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, when, h.Linkname, h.Devmajor, h.Devminor, attributes, sha256.Sum256(content)))
	}
}

// everything makes one of each kind of file below dir.
func everything(t testing.TB, dir string) {
	t.Helper()
	long := dir + "/" + strings.Repeat("directory/", 25) + strings.Repeat("n", 200)
	must(t, os.MkdirAll(filepath.Dir(long), 0o755), os.WriteFile(long, []byte("deep"), 0o644),
		os.WriteFile(dir+"/"+strings.Repeat("x", 150), []byte("no slash"), 0o644),
		os.WriteFile(dir+"/naïve \xff\n", []byte("bytes"), 0o600),
		os.WriteFile(dir+"/empty", nil, 0o644),
		os.WriteFile(dir+"/suid", []byte("s"), 0o755), os.Chown(dir+"/suid", 3_000_000_000, 7), os.Chmod(dir+"/suid", 0o755|os.ModeSetuid|os.ModeSticky),
		os.Link(dir+"/suid", dir+"/another"), os.Link(dir+"/suid", dir+"/directory/"+strings.Repeat("l", 120)),
		os.Symlink("/etc/"+strings.Repeat("target/", 30), dir+"/symlink"), os.Symlink("ü", dir+"/umlaut"),
		unix.Mkfifo(dir+"/fifo", 0o640), unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(dir+"/disk", unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))), os.Mkdir(dir+"/closed", 0o000),
		unix.Mknod(dir+"/socket", unix.S_IFSOCK|0o777, 0),
		unix.Lsetxattr(dir+"/suid", "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
		unix.Lsetxattr(dir+"/empty", "user.note", []byte("line\nand \x00 zero"), 0),
		unix.Lsetxattr(dir+"/closed", "trusted.mark", []byte("x"), 0), unix.Lsetxattr(dir+"/symlink", "trusted.link", []byte("y"), 0),
		unix.Lsetxattr(dir+"/closed", "trusted.overlay.origin", []byte("z"), 0),
	)
	list := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
	must(t, unix.Lsetxattr(dir+"/empty", "system.posix_acl_access", list, 0), unix.Lsetxattr(dir+"/directory", "system.posix_acl_default", list, 0))
	sparse, err := os.Create(dir + "/sparse")
	must(t, err)
	_, err1 := sparse.WriteAt([]byte("begin"), 0)
	_, err2 := sparse.WriteAt([]byte("middle"), 100<<20)
	must(t, err1, err2, sparse.Truncate(9<<30), sparse.Close())
}

func TestWriteKeepsEverything(t *testing.T) {
	testutil.RequireRoot(t)
	from, to := t.TempDir(), t.TempDir()
	hole, err := os.Create(from + "/hole")
	must(t, err, hole.Truncate(1<<20), hole.Close())
	everything(t, from)
	for name, when := range map[string]unix.Timespec{"empty": {Sec: -5, Nsec: 250_000_000}, "suid": {Sec: 1 << 33, Nsec: 1}, "symlink": {Sec: 1e9, Nsec: 100}, "closed": {Sec: 1e9}} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, from+"/"+name, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW))
	}
	data := written(t, opened(t, from), WriteOptions{})
	if len(data) > 3<<20 {
		t.Errorf("the archive of a sparse file has %d bytes", len(data))
	}
	must(t, extract(t, to, bytes.NewReader(data)))
	must(t, os.Remove(from+"/socket"))
	again := written(t, opened(t, to), WriteOptions{})
	if diff := cmp.Diff(headers(t, data), headers(t, again)); diff != "" {
		t.Errorf("the tree is another one after writing and extracting it:\n%s", diff)
	}
	if !bytes.Equal(data, again) {
		t.Error("the two archives differ")
	}
	var st, other unix.Stat_t
	must(t, unix.Lstat(to+"/another", &st), unix.Lstat(to+"/suid", &other))
	if st.Ino != other.Ino || st.Mtim.Sec != 1<<33 || st.Mtim.Nsec != 1 || st.Uid != 3_000_000_000 || st.Mode&0o7777 != 0o5755 {
		t.Errorf("another is %+v", st)
	}
	if unix.Lstat(to+"/sparse", &st); st.Size != 9<<30 || st.Blocks > 1000 {
		t.Errorf("the sparse file has %d bytes in %d blocks", st.Size, st.Blocks)
	}
}

// headers lists the headers alone, as the data of sparse files is long.
func headers(t testing.TB, data []byte) []string {
	t.Helper()
	var list []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		must(t, err)
		list = append(list, fmt.Sprintf("%s %c %o %d:%d %d %s -> %s %d:%d %q", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.UTC().Format(time.RFC3339Nano), h.Linkname, h.Devmajor, h.Devminor, h.PAXRecords))
	}
}

// GNU tar sees in an archive what we put in.
func TestWriteIsReadByGNUTar(t *testing.T) {
	testutil.RequireRoot(t)
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("tar is not installed")
	}
	from, to := t.TempDir(), t.TempDir()
	everything(t, from)
	must(t, os.Remove(from+"/socket"))
	data := written(t, opened(t, from), WriteOptions{})
	cmd := exec.Command("tar", "-xpf", "-", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", to)
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	if diff := cmp.Diff(headers(t, data), headers(t, written(t, opened(t, to), WriteOptions{}))); diff != "" {
		t.Errorf("tar makes another tree of it:\n%s", diff)
	}
}

// A directory that is read in several passes gives the same archive.
func TestWriteLargeDirectory(t *testing.T) {
	dir := t.TempDir()
	for i := range 500 {
		must(t, os.WriteFile(fmt.Sprintf("%s/%d", dir, i*7919%10007), nil, 0o644))
	}
	want := written(t, opened(t, dir), WriteOptions{})
	defer func(n int) { maxNames = n }(maxNames)
	for _, maxNames = range []int{1, 3, 499, 500} {
		if !bytes.Equal(want, written(t, opened(t, dir), WriteOptions{})) {
			t.Errorf("with %d names at a time it is another archive", maxNames)
		}
	}
}

func TestWriteLatest(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/new", nil, 0o644), os.WriteFile(dir+"/old", nil, 0o644), os.Chtimes(dir+"/old", time.Time{}, time.Unix(5, 7)))
	got := map[string]time.Time{}
	for r := tar.NewReader(bytes.NewReader(written(t, opened(t, dir), WriteOptions{Latest: time.Unix(100, 0)}))); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		got[h.Name] = h.ModTime
	}
	if want := map[string]time.Time{"./": time.Unix(100, 0), "new": time.Unix(100, 0), "old": time.Unix(5, 7)}; !cmp.Equal(got, want) {
		t.Errorf("the times are %v", got)
	}
}

func TestWriteRefusesAndEnds(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/f", nil, 0o644), unix.Lsetxattr(dir+"/f", "user.a=b", []byte("x"), 0))
	if err := Write(context.Background(), io.Discard, opened(t, dir), WriteOptions{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("an attribute with an equals sign: %v", err)
	}
	many := inMemory(t)
	must(t, os.WriteFile(many+"/f", nil, 0o644))
	for i := range 16 { // of the largest that there are
		must(t, unix.Lsetxattr(many+"/f", "trusted.a"+strconv.Itoa(i), make([]byte, maxAttribute), 0))
	}
	if err := Write(context.Background(), io.Discard, opened(t, many), WriteOptions{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a megabyte of attributes: %v", err)
	}
	must(t, unix.Lremovexattr(many+"/f", "trusted.a0"), unix.Lremovexattr(many+"/f", "trusted.a1"))
	must(t, extract(t, inMemory(t), bytes.NewReader(written(t, opened(t, many), WriteOptions{}))))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Write(ctx, io.Discard, opened(t, dir), WriteOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the cancellation: %v", err)
	}
	if got := written(t, nil, WriteOptions{}); len(got) != 1024 {
		t.Errorf("an empty tree makes %d bytes", len(got))
	}
}

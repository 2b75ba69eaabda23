package userns

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
)

func TestFree(t *testing.T) {
	spans := []Span{{100, 50}, {1000, 100}}
	for _, c := range []struct {
		taken []Range
		n     uint32
		want  uint32
		ok    bool
	}{
		{nil, 100, 1000, true},
		{nil, 101, 0, false},
		{nil, 40, 1060, true},
		{[]Range{{0, 1060, 40}}, 40, 1020, true},
		{[]Range{{0, 1060, 40}, {0, 1000, 20}}, 40, 1020, true},
		{[]Range{{0, 1060, 40}, {0, 1000, 21}}, 40, 110, true},
		{[]Range{{0, 1000, 21}, {0, 1060, 40}, {0, 120, 5}}, 40, 0, false},
		{[]Range{{0, 1000, 21}, {0, 1060, 40}, {0, 120, 5}}, 20, 1040, true},
		{[]Range{{0, 1090, 500}}, 90, 1000, true},
		{[]Range{{0, 5, 2000}}, 1, 0, false},
	} {
		got, ok := Free(spans, c.taken, c.n)
		if got != c.want || ok != c.ok {
			t.Errorf("%d IDs beside %v: %d, %v, want %d, %v", c.n, c.taken, got, ok, c.want, c.ok)
		}
	}
}

func TestSubordinate(t *testing.T) {
	text := "# comment\nother:1:2\nme:100:50\nme:x:1\nme:0:10\n:5:5\n7:4294967290:1000\nme:1000:0\n\nme:2000:3"
	spans, err := subordinate(strings.NewReader(text), []string{"me", "7", ""})
	if want := "[{100 50} {4294967290 5} {2000 3}]"; fmt.Sprint(spans) != want || err != nil {
		t.Errorf("%v, %v, want %s", spans, err, want)
	}
	if got, want := fmt.Sprint(Whole(spans[:2])), "[{0 100 50} {50 4294967290 5}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if spans, err := Subordinate(t.TempDir()+"/none", "me"); spans != nil || err != nil {
		t.Error(spans, err)
	}
}

func TestLookUp(t *testing.T) {
	ranges := []Range{{0, 1000, 10}, {10, 5000, 5}}
	for id, want := range map[uint32]uint32{0: 1000, 9: 1009, 10: 5000, 14: 5004} {
		if got, ok := Outside(ranges, id); got != want || !ok {
			t.Errorf("%d is %d, want %d", id, got, want)
		}
		if got, ok := Inside(ranges, want); got != id || !ok {
			t.Errorf("%d is %d, want %d", want, got, id)
		}
	}
	if got, ok := Inside(ranges, 0); ok || got != Nobody {
		t.Errorf("the host's root is %d", got)
	}
	if got, ok := Outside(ranges, 15); ok || got != Nobody {
		t.Errorf("one that is not there is %d", got)
	}
}

// The network namespace is the user namespace's, with whose IDs files are shown,
// and no process is left in them.
func TestMake(t *testing.T) {
	testutil.RequireRoot(t)
	m := &Map{UIDs: []Range{{0, 300000, 1000}}, GIDs: []Range{{0, 400000, 1000}}}
	f, err := Make(m, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	owner, err := OfNetwork(f.Net)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	var a, b unix.Stat_t
	if unix.Fstat(int(owner.Fd()), &a) != nil || unix.Fstat(int(f.User.Fd()), &b) != nil || a.Ino != b.Ino {
		t.Errorf("the network is of user namespace %d, not %d", a.Ino, b.Ino)
	}
	another, err := NetworkIn(f.User)
	if err != nil {
		t.Fatal(err)
	}
	defer another.Close()
	if owner, err := OfNetwork(another); err != nil {
		t.Error(err)
	} else if unix.Fstat(int(owner.Fd()), &a); a.Ino != b.Ino {
		t.Errorf("the other network is of user namespace %d, not %d", a.Ino, b.Ino)
	}
	if none, err := NetworkIn(f.Net); err == nil || !strings.Contains(err.Error(), "invalid argument") {
		t.Error(none, err)
	}
	dir := t.TempDir()
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tree)
	if err := MapOwners(tree, int(f.User.Fd()), 0); err != nil {
		t.Fatal(err)
	}
	if unix.Fstat(tree, &a); a.Uid != 300000 || a.Gid != 400000 {
		t.Errorf("root's directory is %d:%d's", a.Uid, a.Gid)
	}
	thread.Own(func() bool {
		if err := unix.Mkdirat(tree, "root", 0o755); err != unix.EOVERFLOW {
			t.Errorf("the host's root, whom the map does not have, made a directory: %v", err)
		}
		back, err := Act(m.Root())
		if err != nil {
			t.Error(err)
		}
		if err := unix.Mkdirat(tree, "made", 0); err != nil {
			t.Error(err)
		}
		if err := unix.Mkdirat(tree, "made/below", 0o700); err != nil { // rights over files are kept
			t.Error(err)
		}
		back()
		return true
	})
	for _, name := range []string{"/made", "/made/below"} {
		if err := unix.Stat(dir+name, &b); err != nil || b.Uid != 0 || b.Gid != 0 {
			t.Errorf("%s on disk is %d:%d's, %v", name, b.Uid, b.Gid, err)
		}
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", os.Getpid(), os.Getpid()))
	if err == nil && len(children) > 0 {
		t.Errorf("children are left: %s", children)
	}
}

func TestMakeRefused(t *testing.T) {
	testutil.RequireRoot(t)
	if f, err := Make(&Map{UIDs: []Range{{1, 300000, 1000}}, GIDs: []Range{{0, 400000, 1000}}}, false); err == nil || !strings.Contains(err.Error(), "without root") {
		t.Error(f, err)
	}
	two := []Range{{0, 300000, 10}, {5, 300100, 10}}
	if f, err := Make(&Map{UIDs: two, GIDs: two}, false); err == nil {
		t.Error("ranges overlap", f)
	}
}

// The thread is the one it was when it is root again.
func TestActAndBack(t *testing.T) {
	testutil.RequireRoot(t)
	thread.Own(func() bool {
		before, _ := os.ReadFile("/proc/thread-self/status")
		back, err := Act(5, 6)
		if err != nil {
			t.Error(err)
		}
		back()
		after, _ := os.ReadFile("/proc/thread-self/status")
		pick := func(text []byte) (out string) {
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "Uid") || strings.HasPrefix(line, "Gid") || strings.HasPrefix(line, "Cap") {
					out += line
				}
			}
			return out
		}
		if pick(before) != pick(after) {
			t.Errorf("before:\n%safter:\n%s", pick(before), pick(after))
		}
		return true
	})
}

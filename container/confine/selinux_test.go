package confine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

// TestRelabel: what is labelled is what the path leads to and all below it, and
// nothing that a link below leads to, nor a directory of the system's by any name.
func TestRelabel(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	for _, d := range []string{"given/sub/deep", "outside/sub", "system/part"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"given/file", "given/sub/deep/file", "outside/file", "outside/sub/file", "system/file", "system/part/file"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"link": "given", "given/out": dir + "/outside", "given/sub/out": "../../outside/file", "root": dir, "alias": "system"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	defer func(was []string) { ofSystem = was }(ofSystem)
	ofSystem = []string{dir + "/system", dir + "/none"}

	const shared = "u:r:files:s0"
	l := Labels{Process: "u:r:processes:s0:c1,c2", Mount: shared + ":c1,c2"}
	if err := l.Relabel(dir+"/link", false); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"given": l.Mount, "given/file": l.Mount, "given/sub": l.Mount, "given/sub/deep/file": l.Mount, "given/sub/out": l.Mount,
		"outside": "", "outside/file": "", "outside/sub": "", "link": "",
	} {
		checkLabel(t, filepath.Join(dir, path), want)
	}
	if err := l.Relabel(dir+"/given/sub", true); err != nil {
		t.Fatal(err)
	}
	checkLabel(t, dir+"/given/sub/deep/file", shared)
	checkLabel(t, dir+"/given/file", l.Mount)

	for _, path := range []string{"system", "alias", "root/system", "given/../system/part/.."} {
		if err := l.Relabel(dir+"/"+path, false); err == nil || !strings.Contains(err.Error(), "SELinux relabeling of "+dir+"/system is not allowed") {
			t.Errorf("%s: %v", path, err)
		}
	}
	checkLabel(t, dir+"/system/file", "")
	if err := l.Relabel(dir+"/root/system/part", false); err != nil {
		t.Error(err)
	}
	checkLabel(t, dir+"/system/part/file", l.Mount)

	// A container puts a link in the place of a directory that was read as one.
	top, err := os.Open(dir + "/given")
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	for _, rel := range []string{"out", "out/sub", "sub/out", "gone"} {
		if err := relabelIn(top, rel, "other"); err != nil {
			t.Errorf("%s: %v", rel, err)
		}
	}
	checkLabel(t, dir+"/outside/file", "")
	checkLabel(t, dir+"/outside/sub/file", "")
}

func checkLabel(t *testing.T, path, want string) {
	t.Helper()
	var is [256]byte
	n, err := unix.Lgetxattr(path, labelName, is[:])
	if err == unix.ENODATA {
		n = 0
	} else if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if got := strings.TrimRight(string(is[:n]), "\x00"); got != want {
		t.Errorf("%s has the label %q, want %q", path, got, want)
	}
}

// TestLabelOptions: no option of a mount is smuggled in by a label.
func TestLabelOptions(t *testing.T) {
	for _, option := range []string{`level:s0",upperdir="/etc`, "type:a b", "type:a\nb", `type:a\`, "type:é"} {
		if l, err := Allot([]string{option}); err == nil {
			t.Errorf("%q gave %+v", option, l)
		}
	}
	if got := (Labels{Process: "u:r:t:s0:c1,c2"}).Level() + (Labels{}).Level(); got != "s0:c1,c2" {
		t.Errorf("the level %q", got)
	}
}

package files

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestHostsFollowALink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte("# database\n10.0.0.2\tdatabase dbhost db\n10.0.0.222\tdatabase2\nown line without end"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	if err := Readdress(path, "database", netip.MustParseAddr("10.0.0.3")); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	if want := "# database\n10.0.0.3\tdatabase dbhost db\n10.0.0.222\tdatabase2\nown line without end"; string(text) != want {
		t.Errorf("%q", text)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("it is another file, which the container does not see")
	}
	if err := Readdress(path, "database", netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	if text, _ = os.ReadFile(path); string(text) != "# database\n10.0.0.222\tdatabase2\nown line without end" {
		t.Errorf("the link is removed: %q", text)
	}
	if err := os.WriteFile(path, make([]byte, maxHosts+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Readdress(path, "database", netip.MustParseAddr("10.0.0.3")); err == nil {
		t.Error("a file without end is read")
	}
}

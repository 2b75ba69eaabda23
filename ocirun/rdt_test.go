package ocirun

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
)

// TestRdtFiles: what is written to a group, in files that stand for the kernel's.
// No machine of ours has the kernel's.
func TestRdtFiles(t *testing.T) {
	top, old := t.TempDir(), resctrl
	resctrl = func() (string, error) { return top, nil }
	defer func() { resctrl = old }()
	group := filepath.Join(top, "gold")
	file := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(group, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(group, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file("schemata", "    L3:0=7ff;1=01f\n    MB:0=  20;1=  70\n")
	file("tasks", "")
	file("mon_groups/none", "")
	r := &specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=7FF;1=1f", MemBwSchema: "MB:0=20", EnableMonitoring: true}
	c := &Container{id: "box", spec: &specs.Spec{Linux: &specs.Linux{IntelRdt: r}}}
	if err := c.makeRdt(); err != nil {
		t.Fatal(err)
	}
	file("mon_groups/box/tasks", "") // the kernel makes it with the directory
	if err := c.enterRdt(42); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tasks", "mon_groups/box/tasks"} {
		if b, _ := os.ReadFile(filepath.Join(group, name)); string(b) != "42" {
			t.Errorf("%s: %q", name, b)
		}
	}
	_ = os.Remove(filepath.Join(group, "mon_groups/box/tasks"))
	if err := c.removeRdt(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(group, "mon_groups/box")); err == nil {
		t.Error("the monitoring group is left")
	}
	if _, err := os.Stat(group); err != nil {
		t.Error("a group with a name was removed:", err)
	}
	r.EnableMonitoring, r.L3CacheSchema = false, "L3:0=1"
	if err := c.makeRdt(); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "L3:0=7ff") {
		t.Error(err)
	}
	for _, other := range []specs.LinuxIntelRdt{{MemBwSchema: "MB:0=30"}, {Schemata: []string{"L3:1=1f", "MB:1=70", "L3:0=7"}}} {
		other.ClosID = "gold"
		c.spec.Linux.IntelRdt = &other
		if err := c.makeRdt(); fault.KindOf(err) != fault.Conflict {
			t.Errorf("%+v: %v", other, err)
		}
	}
	c.spec.Linux.IntelRdt = r
	if err := c.UpdateRdt("L3:0=3", ""); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(filepath.Join(group, "schemata")); !strings.HasPrefix(string(b), "L3:0=3\n") {
		t.Errorf("schemata: %q", b)
	}
	c.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "silver"}
	if err := c.makeRdt(); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
	for _, bad := range []*specs.LinuxIntelRdt{{ClosID: "a/b"}, {ClosID: ".."}, {Schemata: []string{"L3:0=1\nMB:0=1"}}, {MemBwSchema: "L3:0=1"}} {
		if err := checkRdt(bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

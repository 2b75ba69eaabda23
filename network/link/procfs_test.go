package link

import (
	"os"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
)

// A setting is made in the namespace of the thread, by each instance of procfs and
// by the one that is mounted.
func TestSettingsOfANamespace(t *testing.T) {
	testutil.RequireRoot(t)
	const file = "ipv4/conf/lo/log_martians"
	read := func() string {
		text, err := os.ReadFile("/proc/sys/net/" + file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	own := read()
	first, second := testutil.NewNetNS(t), testutil.NewNetNS(t)
	p := &procSys{}
	instances := map[int]bool{}
	for range procSysUses {
		for ns, value := range map[*os.File]string{first: "1", second: "0"} {
			testutil.InNetNS(t, ns, func() error { return p.write(file, value) })
			instances[p.mount] = true
			testutil.InNetNS(t, ns, func() error {
				if got := read(); got != value+"\n" {
					t.Errorf("%q is set, not %s", got, value)
				}
				return nil
			})
		}
	}
	if instances[0] {
		t.Error("there is no instance of our own")
	}
	if read() != own {
		t.Error("the host's setting has changed")
	}
	mounted := &procSys{left: 2}
	testutil.InNetNS(t, first, func() error { return mounted.write(file, "0") })
	testutil.InNetNS(t, first, func() error {
		if got := read(); got != "0\n" {
			t.Errorf("%q is set by the mounted one", got)
		}
		return nil
	})
	if err := p.write("ipv4/conf/nosuch/log_martians", "1"); !os.IsNotExist(err) {
		t.Errorf("of an interface that there is not: %v", err)
	}
}

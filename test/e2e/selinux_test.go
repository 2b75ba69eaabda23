package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// loadPolicy has the kernel enforce the policy of testdata, once and for all: this
// is for machines that are started for it.
func loadPolicy(t *testing.T) {
	t.Helper()
	testutil.RequireRoot(t)
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil || !strings.Contains(string(line), "tare.policy=test") {
		t.Skip("this machine was not started for a policy of SELinux to be tried: see scripts/test-kernel")
	}
	text, err := os.ReadFile("testdata/selinux.cil")
	if err != nil {
		t.Fatal(err)
	}
	var categories, order strings.Builder
	for i := range 1024 {
		fmt.Fprintf(&categories, "(category c%d) ", i)
		fmt.Fprintf(&order, "c%d ", i)
	}
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "policy.cil"), filepath.Join(dir, "policy")
	all := strings.Replace(string(text), "CATEGORIES", categories.String()+"\n(categoryorder ("+order.String()+"))", 1)
	if err := os.WriteFile(source, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("secilc", "-M", "true", "-c", "33", "-o", binary, "-f", "/dev/null", source).CombinedOutput(); err != nil {
		t.Fatalf("%v (make test-kernel installs what is missing)\n%s", err, out)
	}
	policy, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	contexts := "process = \"system_u:system_r:svirt_lxc_net_t:s0\"\nfile = \"system_u:object_r:svirt_lxc_file_t:s0\"\n"
	for _, file := range [][2]string{
		{"/etc/selinux/tare/contexts/lxc_contexts", contexts},
		{"/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=tare\n"},
		{"/sys/fs/selinux/load", string(policy)},
		{"/sys/fs/selinux/enforce", "1"},
	} {
		if err := os.MkdirAll(filepath.Dir(file[0]), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file[0], []byte(file[1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := os.ReadFile("/proc/self/attr/current"); err != nil || !strings.HasPrefix(string(out), "system_u:system_r:kernel_t:s0") {
		t.Fatalf("the policy is not in force: %q %v", out, err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("sh", "-c", "dmesg | grep avc:").Output(); t.Failed() && err == nil {
			t.Logf("the kernel denied:\n%s", out)
		}
	})
}

// TestSELinux: the kernel keeps a container to its own files and to those that it
// was given, and containers apart by their categories.
func TestSELinux(t *testing.T) {
	loadPolicy(t)
	d := daemon.New(t, "--selinux-enabled")
	// Policies say so of a daemon's data root; what is made in it has its type.
	if err := unix.Setxattr(dataRoot(t, d), "security.selinux", []byte("system_u:object_r:layer_t:s0"), 0); err != nil {
		t.Fatal(err)
	}
	d.Up(t)
	d.ImportBusybox(t)
	if out := d.Tare(t, "info", "--format", "{{.SecurityOptions}}"); !strings.Contains(out, " name=selinux ") && !strings.HasSuffix(out, " name=selinux]") {
		t.Error(out)
	}
	host := filepath.Join(d.Dir, "host")
	for _, dir := range []string{"plain", "shared", "private"} {
		if err := os.MkdirAll(filepath.Join(host, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(host, dir, "file"), []byte(dir), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const own = "/proc/self/attr/current"
	binds := []string{"-v", host + "/plain:/plain", "-v", host + "/shared:/shared:z", "-v", "vol:/vol"}
	run := func(args ...string) string {
		t.Helper()
		return d.Tare(t, append([]string{"run", "-d"}, append(args, "busybox", "sleep", "1000")...)...)
	}
	run(append(binds, "--name", "one", "-v", host+"/private:/private:Z")...)
	run(append(binds, "--name", "two", "-v", host+"/private:/private")...)
	run("--name", "like", "--pid", "container:one")
	run("--name", "exact", "--security-opt", "label=level:s0:c7,c9")
	run("--name", "free", "--privileged", "-v", host+"/plain:/plain")
	label := func(name string) string {
		return strings.TrimRight(d.Tare(t, "exec", name, "cat", own), "\x00")
	}
	one, two := label("one"), label("two")
	if pattern := regexp.MustCompile(`^system_u:system_r:svirt_lxc_net_t:s0:c\d+,c\d+$`); !pattern.MatchString(one) || !pattern.MatchString(two) || one == two {
		t.Errorf("labels %q and %q", one, two)
	}
	files := strings.Replace(strings.Replace(one, "system_r", "object_r", 1), "_net_", "_file_", 1)
	if out := d.Tare(t, "inspect", "--format", "{{.ProcessLabel}} {{.MountLabel}}", "one"); out != one+" "+files {
		t.Errorf("inspect: %s", out)
	}
	for name, want := range map[string]string{"like": one, "exact": "system_u:system_r:svirt_lxc_net_t:s0:c7,c9"} {
		if got := label(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := label("free"); !strings.Contains(got, ":kernel_t:") {
		t.Errorf("a privileged one: %s", got)
	}

	// What the kernel says of the files.
	for _, c := range []struct {
		name, file string
		may        bool
	}{
		{"one", "/plain/file", false}, {"one", "/shared/file", true}, {"one", "/private/file", true}, {"one", "/etc/passwd", true}, {"one", "/etc/hosts", true}, {"one", "/etc/resolv.conf", true},
		{"two", "/plain/file", false}, {"two", "/shared/file", true}, {"two", "/private/file", false}, {"free", "/plain/file", true},
	} {
		out, err := d.Try("exec", c.name, "cat", c.file)
		if (err == nil) != c.may || err != nil && !strings.Contains(err.Error(), "Permission denied") {
			t.Errorf("%s reads %s: %q %v", c.name, c.file, out, err)
		}
	}
	d.Tare(t, "exec", "one", "sh", "-c", "echo x > /new; cat /new; echo y > /dev/shm/new; cat /dev/shm/new; echo volume > /vol/file")
	if out := d.Tare(t, "exec", "two", "cat", "/vol/file"); out != "volume" {
		t.Errorf("a volume that both have: %q", out)
	}

	// The next daemon knows whose categories are whose, and so does a restart.
	d.Signal(t, 15)
	d.Up(t)
	d.Tare(t, "restart", "-t", "0", "one")
	if got := label("one"); got != one {
		t.Errorf("after a restart: %s, was %s", got, one)
	}
	if out, err := d.Try("create", "--security-opt", "label=colour:red", "busybox"); err == nil || !strings.Contains(err.Error(), "bad label option") {
		t.Errorf("a label that is none: %s %v", out, err)
	}
}

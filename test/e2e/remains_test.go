package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// groupsOf lists the control groups of a daemon's containers, and remainsOf the
// bundles of those that are over.
func groupsOf(d *daemon.Daemon) []string {
	name := d.Cgroup + "/" + strings.Repeat("[0-9a-f]", 64)
	v1, _ := filepath.Glob("/sys/fs/cgroup/*" + name)
	v2, _ := filepath.Glob("/sys/fs/cgroup" + name)
	return append(v1, v2...)
}

func remainsOf(d *daemon.Daemon) []string {
	list, _ := filepath.Glob(d.Dir + "/exec/c/*-removing")
	return list
}

// TestRemains: the control groups of runs that are over wait for a quiet moment.
// Whatever ends the daemon meanwhile, none is left.
func TestRemains(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	d.Up(t)
	d.ImportBusybox(t)
	none := func() bool { return len(groupsOf(d))+len(remainsOf(d)) == 0 }
	leave := func(by syscall.Signal) (left int) {
		for range 3 {
			d.Tare(t, "run", "--rm", "--network", "none", "busybox", "true")
		}
		d.Signal(t, by)
		return len(groupsOf(d))
	}

	// What is left of a run is nobody's, even where another container is called like that.
	left := strings.Repeat("ab", 32) + "-removing"
	d.Tare(t, "create", "--name", left, "--network", "none", "busybox")
	if err := os.Mkdir(d.Dir+"/exec/c/"+left, 0o700); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 20*time.Second, "a daemon is killed while groups wait", func() bool {
		left := leave(syscall.SIGKILL)
		d.Up(t)
		return left > 0
	})
	testutil.Eventually(t, 10*time.Second, "the next one has removed them", none)

	if left := leave(syscall.SIGTERM); left > 0 {
		t.Errorf("a daemon that ended in peace left %d groups, such as %s", left, groupsOf(d)[0])
	}
	d.Up(t)
	for range 5 {
		d.Tare(t, "run", "--rm", "--network", "none", "busybox", "true")
	}
	testutil.Eventually(t, 10*time.Second, "a quiet moment has removed them", none)
}

// TestRestartHasNewGroups: a container that is started while the groups of its last
// run wait gets new ones, which know nothing of that.
func TestRestartHasNewGroups(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	state := func() string {
		return d.Tare(t, "inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", "again")
	}
	d.Tare(t, "create", "--name", "again", "--network", "none", "--memory", "8m", "busybox",
		"sh", "-c", "if [ -e /x ]; then exit 7; fi; touch /x; sync; exec tail /dev/zero")
	d.Tare(t, "start", "again")
	d.Tare(t, "wait", "again")
	if got := state(); got != "137 true" {
		t.Fatalf("without memory it ended with %q, not 137 true", got)
	}
	for range 3 {
		d.Tare(t, "start", "again")
		d.Tare(t, "wait", "again")
		if got := state(); got != "7 false" {
			t.Fatalf("the next run ended with %q, not 7 false", got)
		}
	}
	d.Tare(t, "rm", "again")
}

package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tarehq/tare/test/daemon"
)

// TestSystemdDriver: the daemon has systemd make the containers' groups, as
// scopes of the slice that it is told, or that a container asks for.
func TestSystemdDriver(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("needs systemd")
	}
	d := daemon.New(t, "--exec-opt", "native.cgroupdriver=systemd", "--cgroup-parent", "tare-e2e.slice")
	d.Up(t)
	d.ImportBusybox(t)
	show := func(unit, property string) string {
		out, err := exec.Command("systemctl", "show", "-p", property, "--value", unit).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if out := d.Tare(t, "info", "--format", "{{.CgroupDriver}}"); out != "systemd" {
		t.Errorf("the driver is %s", out)
	}
	id := d.Tare(t, "run", "-d", "--pids-limit", "40", "--network", "none", "busybox", "sleep", "1000")
	unit := "tare-" + id + ".scope"
	if got := show(unit, "ControlGroup"); got != "/tare.slice/tare-e2e.slice/"+unit {
		t.Errorf("its group is %s", got)
	}
	if got := show(unit, "TasksMax"); got != "40" {
		t.Errorf("TasksMax is %s", got)
	}
	d.Tare(t, "update", "--pids-limit", "50", id)
	if got := show(unit, "TasksMax"); got != "50" {
		t.Errorf("TasksMax is %s", got)
	}
	d.Tare(t, "exec", id, "true")
	if out := d.Tare(t, "stats", "--no-stream", "--format", "{{.PIDs}}", id); out != "1" {
		t.Errorf("%s processes", out)
	}
	if out := d.Tare(t, "top", id); !strings.Contains(out, "sleep 1000") {
		t.Error(out)
	}
	d.Tare(t, "pause", id)
	d.Tare(t, "unpause", id)
	d.Tare(t, "rm", "-f", id)
	if got := show(unit, "ActiveState"); got != "inactive" {
		t.Errorf("the unit is %s", got)
	}
	if _, err := d.Try("create", "--cgroup-parent", "/tare", "busybox"); err == nil || !strings.Contains(err.Error(), `cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`) {
		t.Error(err)
	}
	_ = exec.Command("systemctl", "stop", "tare-e2e.slice", "tare.slice").Run()
}

package cgroup

import (
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/testutil"
)

// TestUpdateAllOrNothing: one value of several is refused, and those before it
// are as they were, whether the new ones are above or below.
func TestUpdateAllOrNothing(t *testing.T) {
	testutil.RequireRoot(t)
	limit, swap, pids, quota, period := int64(40<<20), int64(80<<20), int64(50), int64(50000), uint64(100000)
	born := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}, Pids: &specs.LinuxPids{Limit: &pids},
		CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}
	g, err := Create(fmt.Sprintf("/tare-test-%s-%d", t.Name(), os.Getpid()), born)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Delete()
	before := fmt.Sprint(g.inForce(born))
	for _, factor := range []int64{2, 3, 1} { // of the limits, in units of half of what they are
		limit, swap, quota := limit*factor/2, swap*factor/2, quota*factor/2
		r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}, CPU: &specs.LinuxCPU{Quota: &quota, Cpus: "4095"}}
		if err := g.Update(r); err == nil || !strings.Contains(err.Error(), "cpuset.cpus") {
			t.Fatalf("a processor that is not there: %v", err)
		}
		if after := fmt.Sprint(g.inForce(born)); after != before {
			t.Errorf("was %s, is %s", before, after)
		}
	}
	pids = 7
	if err := g.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}); err != nil || cgroupfs.Number(g.dirOf("pids"), "pids.max") != 7 {
		t.Error(err)
	}
}

// dirOf is the group with a controller's files, of either version.
func (g *Group) dirOf(controller string) string {
	if g.Unified {
		return g.Members[0].Dir
	}
	return g.dir(controller)
}

func TestValueOf(t *testing.T) {
	words := func(text string) (out [][]string) {
		for line := range strings.Lines(text) {
			out = append(out, strings.Fields(line))
		}
		return out
	}
	for _, test := range []struct {
		file, value, have, want string
		none                    bool
	}{
		{"memory.limit_in_bytes", "1", "5\n", "5", false},
		{"memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\n", "0", false},
		{"cpu.max", "1 100000", "max 100000\n", "max 100000", false},
		{"blkio.throttle.read_bps_device", "8:0 5", "8:16 1\n8:0 9\n", "8:0 9", false},
		{"blkio.throttle.read_bps_device", "8:0 5", "8:16 1\n", "8:0 0", false},
		{"io.max", "8:0 rbps=5", "8:0 rbps=1 wbps=max\n", "8:0 rbps=1 wbps=max", false},
		{"io.max", "8:0 rbps=5", "", "8:0 rbps=max", false},
		{"io.weight", "default 5", "default 100\n8:0 50\n", "default 100", false},
		{"pids.max", "1", "", "", true},
		{"rdma.max", "mlx5_1 hca_handle=5", "mlx4_0 hca_handle=1 hca_object=1\nmlx5_1 hca_handle=2 hca_object=max\n", "mlx5_1 hca_handle=2 hca_object=max", false},
	} {
		if got, ok := valueOf(setting{file: test.file, value: test.value}, words(test.have)); got != test.want || ok == test.none {
			t.Errorf("%+v: %q, %v", test, got, ok)
		}
	}
}

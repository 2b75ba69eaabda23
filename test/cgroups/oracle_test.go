package cgroups

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // rules for devices
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/ocirun/cgroup"
)

// rows are the resources of specifications, in JSON, by what they are about. DISK
// is the number of a disk.
var rows = []struct{ name, version, text string }{
	{"nothing", "", `{}`},
	{"memory", "", `{"memory":{"limit":67108864}}`},
	{"memory and swap", "", `{"memory":{"limit":67108864,"swap":134217728}}`},
	{"no swap", "", `{"memory":{"limit":67108864,"swap":67108864}}`},
	{"swap without end", "", `{"memory":{"limit":67108864,"swap":-1}}`},
	{"memory without end", "", `{"memory":{"limit":-1}}`},
	{"memory and swap without end", "", `{"memory":{"limit":-1,"swap":-1}}`},
	{"no memory", "", `{"memory":{"limit":0,"swap":0}}`},
	{"reservation", "", `{"memory":{"limit":67108864,"reservation":33554432}}`},
	{"reservation alone", "", `{"memory":{"reservation":33554432}}`},
	{"reservation without end", "", `{"memory":{"reservation":-1}}`},
	{"an odd limit", "", `{"memory":{"limit":67108865}}`},
	{"swappiness", "1", `{"memory":{"swappiness":10}}`},
	{"no swappiness", "1", `{"memory":{"swappiness":0}}`},
	{"kernel TCP", "1", `{"memory":{"limit":67108864,"kernelTCP":33554432}}`},
	{"no OOM killer", "1", `{"memory":{"limit":67108864,"disableOOMKiller":true}}`},
	{"OOM killer", "", `{"memory":{"limit":67108864,"disableOOMKiller":false}}`},
	{"hierarchy", "", `{"memory":{"limit":67108864,"useHierarchy":true}}`},
	{"shares", "", `{"cpu":{"shares":512}}`},
	{"least shares", "", `{"cpu":{"shares":2}}`},
	{"one share", "", `{"cpu":{"shares":1}}`},
	{"no shares", "", `{"cpu":{"shares":0}}`},
	{"usual shares", "", `{"cpu":{"shares":1024}}`},
	{"odd shares", "", `{"cpu":{"shares":1023}}`},
	{"many shares", "", `{"cpu":{"shares":262144}}`},
	{"too many shares", "", `{"cpu":{"shares":1000000}}`},
	{"quota", "", `{"cpu":{"quota":50000}}`},
	{"quota and period", "", `{"cpu":{"quota":20000,"period":50000}}`},
	{"period", "", `{"cpu":{"period":50000}}`},
	{"short period", "", `{"cpu":{"quota":5000,"period":10000}}`},
	{"long quota", "", `{"cpu":{"quota":2000000,"period":1000000}}`},
	{"quota without end", "", `{"cpu":{"quota":-1,"period":50000}}`},
	{"burst", "", `{"cpu":{"quota":50000,"burst":20000}}`},
	{"burst of nothing", "", `{"cpu":{"quota":50000,"burst":0}}`},
	{"idle", "", `{"cpu":{"idle":1}}`},
	{"not idle", "", `{"cpu":{"idle":0,"shares":512}}`},
	{"cpus", "", `{"cpu":{"cpus":"0","mems":"0"}}`},
	{"a list of cpus", "", `{"cpu":{"cpus":"0,1"}}`},
	{"pids", "", `{"pids":{"limit":100}}`},
	{"pids without end", "", `{"pids":{"limit":-1}}`},
	{"no pids", "", `{"pids":{"limit":0}}`},
	{"huge pages", "", `{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}`},
	{"net class", "1", `{"network":{"classID":1048577}}`},
	{"net priorities", "1", `{"network":{"priorities":[{"name":"lo","priority":3}]}}`},
	{"weight", "", `{"blockIO":{"weight":300}}`},
	{"least weight", "", `{"blockIO":{"weight":10}}`},
	{"most weight", "", `{"blockIO":{"weight":1000}}`},
	{"weight of a device", "", `{"blockIO":{"weight":300,"weightDevice":[{"major":MAJOR,"minor":MINOR,"weight":400}]}}`},
	{"bytes", "", `{"blockIO":{"throttleReadBpsDevice":[{"major":MAJOR,"minor":MINOR,"rate":1048576}],"throttleWriteBpsDevice":[{"major":MAJOR,"minor":MINOR,"rate":2097152}]}}`},
	{"operations", "", `{"blockIO":{"throttleReadIOPSDevice":[{"major":MAJOR,"minor":MINOR,"rate":100}],"throttleWriteIOPSDevice":[{"major":MAJOR,"minor":MINOR,"rate":200}]}}`},
	// On version 2 the library writes a zero, which the kernel refuses, where we write max.
	{"rate without end", "1", `{"blockIO":{"throttleReadBpsDevice":[{"major":MAJOR,"minor":MINOR,"rate":0}]}}`},
	{"no device", "", `{"devices":[{"allow":false,"access":"rwm"}]}`},
	{"some devices", "", `{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},{"allow":true,"type":"b","major":8,"access":"r"}]}`},
	{"all devices", "", `{"devices":[{"allow":true,"access":"rwm"}]}`},
	{"all devices but one", "", `{"devices":[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}]}`},
	{"as Docker", "", `{"memory":{"limit":536870912,"swap":1073741824,"disableOOMKiller":false},"cpu":{"shares":1024,"quota":150000,"period":100000},"pids":{"limit":2048},"blockIO":{"weight":0},
		"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"}]}`},
	{"unified", "2", `{"unified":{"memory.high":"33554432","memory.min":"1048576","pids.max":"77","cpu.weight":"42","cpu.max":"10000 100000","io.weight":"50"}}`},
	{"unified beside limits", "2", `{"memory":{"limit":67108864},"pids":{"limit":100},"unified":{"memory.max":"33554432","pids.max":"max"}}`},
	{"freezer", "2", `{"unified":{"cgroup.max.depth":"3","cgroup.max.descendants":"5","memory.oom.group":"1"}}`},
	{"unified that is not", "2", `{"unified":{"memory.nothing":"1"}}`},
	{"unified and limit in a contradiction", "2", `{"cpu":{"quota":50000,"period":100000},"unified":{"cpu.max":"20000 50000"}}`},
}

// unordered are files whose lines are in the order of their history.
var unordered = []string{"devices.list"}

// apart are files that both have otherwise.
var apart = []string{
	"memory.kmem.tcp.limit_in_bytes", // the library sets it no more; kernels that have version 1 still know it
}

func TestAsTheLibrary(t *testing.T) {
	testutil.RequireRoot(t)
	l, err := cgroupfs.Host()
	if err != nil {
		t.Fatal(err)
	}
	version := "1"
	if l.Unified() {
		version = "2"
	}
	major, minor := disk()
	for i, row := range rows {
		if row.version != "" && row.version != version {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			if major == "" && strings.Contains(row.text, "MAJOR") {
				t.Skip("needs a block device")
			}
			var r specs.LinuxResources
			if err := json.Unmarshal([]byte(strings.NewReplacer("MAJOR", major, "MINOR", minor).Replace(row.text)), &r); err != nil {
				t.Fatal(err)
			}
			base := fmt.Sprintf("/tare-test-oracle-%d-%d", os.Getpid(), i)
			theirs, err1 := library(t, base+"-theirs", &r)
			ours, err2 := cgroup.Create(base+"-ours", &r)
			if err2 == nil {
				defer func() {
					if err := ours.Delete(); err != nil {
						t.Error(err)
					}
				}()
			}
			if (err1 == nil) != (err2 == nil) {
				t.Fatalf("the library says %v, we say %v", err1, err2)
			}
			if err1 != nil {
				return
			}
			for _, m := range ours.Members {
				compare(t, strings.TrimSuffix(m.Dir, "-ours")+"-theirs", m.Dir)
			}
			for controller, dir := range theirs.GetPaths() {
				if _, err := os.Stat(strings.TrimSuffix(dir, "-theirs") + "-ours"); err != nil {
					t.Errorf("no group of ours for %q: %v", controller, err)
				}
			}
		})
	}
}

// library has runc's library make and limit a group, as runc's create does.
func library(t *testing.T, path string, r *specs.LinuxResources) (cgroups.Manager, error) {
	t.Helper()
	spec := &specs.Spec{Version: specs.Version, Root: &specs.Root{Path: "/"}, Process: &specs.Process{}, Linux: &specs.Linux{CgroupsPath: path, Resources: r}}
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: path, Spec: spec})
	if err != nil {
		return nil, err
	}
	m, err := manager.New(config.Cgroups)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := m.Destroy(); err != nil {
			t.Error(err)
		}
	})
	inside := exec.Command("sleep", "60")
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	defer inside.Wait()
	defer inside.Process.Kill()
	if err := m.Apply(inside.Process.Pid); err != nil {
		return nil, err
	}
	return m, m.Set(config.Cgroups.Resources)
}

// compare compares what can be set of two groups of one hierarchy.
func compare(t *testing.T, theirs, ours string) {
	t.Helper()
	entries, err := os.ReadDir(ours)
	if err != nil {
		t.Error(err)
		return
	}
	seen := 0
	for _, e := range entries {
		name := e.Name()
		info, err := e.Info()
		if err != nil || e.IsDir() || name != "devices.list" && info.Mode()&0o600 != 0o600 || passing(name) {
			continue
		}
		a, err1 := os.ReadFile(filepath.Join(theirs, name))
		b, err2 := os.ReadFile(filepath.Join(ours, name))
		seen++
		if x, y := text(name, a), text(name, b); x != y || (err1 == nil) != (err2 == nil) {
			t.Errorf("%s: the library has %q, we have %q (%v, %v)", filepath.Join(ours, name), x, y, err1, err2)
		}
	}
	if seen == 0 {
		t.Errorf("nothing to compare in %s", ours)
	}
}

// passing tells of files that say what happens, not what is set.
func passing(name string) bool {
	return slices.Contains(apart, name) || name == "tasks" || name == "cgroup.procs" || name == "cgroup.threads" || strings.Contains(name, "usage") || strings.Contains(name, "failcnt") ||
		strings.HasSuffix(name, ".pressure") || strings.HasSuffix(name, ".peak") || strings.HasSuffix(name, "watermark") || strings.Contains(name, "kmem.slabinfo")
}

// text is a file's content, in order where there is none.
func text(name string, b []byte) string {
	if !slices.Contains(unordered, name) {
		return string(b)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n")
}

// disk is the number of a block device that limits can be set for, "" without any.
func disk() (major, minor string) {
	entries, _ := os.ReadDir("/sys/block")
	for _, e := range entries {
		if b, err := os.ReadFile("/sys/block/" + e.Name() + "/dev"); err == nil {
			major, minor, _ = strings.Cut(strings.TrimSpace(string(b)), ":")
			return major, minor
		}
	}
	return "", ""
}

package ocirun

import (
	"context"
	"math"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun/cgroup"
)

// TestNUL puts a NUL byte into each word of a specification that the kernel
// would read up to it.
func TestNUL(t *testing.T) {
	const bad = "/a\x00b"
	hook := []specs.Hook{{Path: "/h", Env: []string{bad}}}
	for want, change := range map[string]func(*specs.Spec){
		"process.args":               func(s *specs.Spec) { s.Process.Args = []string{"a", bad} },
		"process.env":                func(s *specs.Spec) { s.Process.Env = []string{bad} },
		"process.cwd":                func(s *specs.Spec) { s.Process.Cwd = bad },
		"root.path":                  func(s *specs.Spec) { s.Root.Path = bad },
		"hostname":                   func(s *specs.Spec) { s.Hostname = bad },
		"domainname":                 func(s *specs.Spec) { s.Domainname = bad },
		"mounts.destination":         func(s *specs.Spec) { s.Mounts[1].Destination = bad },
		"mounts.type":                func(s *specs.Spec) { s.Mounts[1].Type = bad },
		"mounts.source":              func(s *specs.Spec) { s.Mounts[1].Source = bad },
		"mounts.options":             func(s *specs.Spec) { s.Mounts[1].Options = []string{"ro", bad} },
		"hooks.path":                 func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: bad}}} },
		"hooks.args":                 func(s *specs.Spec) { s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Args: []string{bad}}}} },
		"hooks.env":                  func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateContainer: hook} },
		"linux.cgroupsPath":          func(s *specs.Spec) { s.Linux.CgroupsPath = bad },
		"linux.maskedPaths":          func(s *specs.Spec) { s.Linux.MaskedPaths = []string{bad} },
		"linux.readonlyPaths":        func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{bad} },
		"linux.namespaces.path":      func(s *specs.Spec) { s.Linux.Namespaces[0].Path = bad },
		"linux.devices.path":         func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: bad}} },
		"linux.sysctl":               func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.a": bad} },
		"linux.seccomp.listenerPath": func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{ListenerPath: bad} },
	} {
		s := Default("/rootfs", "sh")
		if err := check(s); err != nil {
			t.Fatal(err)
		}
		change(s)
		if err := check(s); fault.KindOf(err) != fault.Invalid || !strings.HasPrefix(err.Error(), want+" has a NUL byte") {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, r := range map[string]*specs.LinuxResources{
		"unified": {Unified: map[string]string{"memory.high": bad}}, "hugepageLimits.pageSize": {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: bad}}},
		"cpu": {CPU: &specs.LinuxCPU{Mems: bad}}, "network.priorities": {Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: bad}}}},
	} {
		if err := new(cgroup.Group).Set(r); fault.KindOf(err) != fault.Invalid || !strings.HasPrefix(err.Error(), "linux.resources."+want+" has a NUL byte") {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := (&Container{}).Exec(context.Background(), ExecOptions{Process: &specs.Process{Args: []string{bad}}}); fault.KindOf(err) != fault.Invalid {
		t.Error("exec:", err)
	}
}

// TestNoID: -1 asks setresuid(2) to leave an id as it is, which is root's.
func TestNoID(t *testing.T) {
	for want, u := range map[string]specs.User{"process.user.uid": {UID: math.MaxUint32}, "process.user.gid": {GID: math.MaxUint32},
		"process.user.additionalGids": {AdditionalGids: []uint32{5, math.MaxUint32}}} {
		s := Default("/rootfs", "sh")
		s.Process.User = u
		if err := check(s); fault.KindOf(err) != fault.Invalid || !strings.HasPrefix(err.Error(), want+" cannot be 4294967295") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

package ocirun

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/stage"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
)

// mountTable gives a process's mounts without their numbers, sorted.
func mountTable(pid int) (list []string) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 9 {
			list = append(list, strings.Join(append(f[3:6:6], f[6:]...), " "))
		}
	}
	slices.Sort(list)
	return list
}

// beneath takes a container's root directory off and gives the names below it.
func beneath(t *testing.T, pid int) (names []string) {
	t.Helper()
	thread.Own(func() bool {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err == nil {
			defer ns.Close()
			err = unix.Unshare(unix.CLONE_FS)
		}
		for i := 0; i < 2 && err == nil; i++ { // whoever joins is on top of what lies over "/"
			if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err == nil && i == 0 {
				err = unix.Unmount("/", unix.MNT_DETACH)
			}
		}
		if err != nil {
			t.Error(err)
			return false
		}
		list, _ := os.ReadDir("/")
		for _, e := range list {
			names = append(names, e.Name())
		}
		return false
	})
	return names
}

// TestStage: a container whose mounts begin on a stage has the same as others,
// and nothing of the host below its root. One that could change the stage, or
// needs more of the host's tree, is not given it.
func TestStage(t *testing.T) {
	testutil.RequireRoot(t)
	clean(t)
	empty, err := stage.New()
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	dir, s := bundle(t, "sleep", "60")
	_ = os.WriteFile(filepath.Join(dir, "of"), []byte("bound\n"), 0o644)
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt/of", Type: "bind", Source: "of", Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/host", Type: "bind", Source: "/", Options: []string{"bind", "ro"}})
	if s.Linux.Seccomp, err = profile.GetDefaultProfile(s); err != nil {
		t.Fatal(err)
	}
	var tables [][]string
	for name, change := range map[string]func(*specs.Spec, *Options){
		"staged":  func(*specs.Spec, *Options) {},
		"without": func(_ *specs.Spec, o *Options) { o.Stage = nil },
		"may mount": func(s *specs.Spec, _ *Options) {
			s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
		},
		"without any": func(s *specs.Spec, _ *Options) { s.Process.Capabilities = nil },
		"unfiltered":  func(s *specs.Spec, _ *Options) { s.Linux.Seccomp = nil }, // a privileged exec may mount
		"lets mount": func(s *specs.Spec, _ *Options) {
			filter := *s.Linux.Seccomp
			filter.Syscalls = append(slices.Clone(filter.Syscalls), specs.LinuxSyscall{Names: []string{"fsconfig"}, Action: specs.ActAllow})
			s.Linux.Seccomp = &filter
		},
		"shared": func(s *specs.Spec, _ *Options) { s.Linux.RootfsPropagation = "shared" },
	} {
		changed, process, linux := *s, *s.Process, *s.Linux
		capabilities := *s.Process.Capabilities
		process.Capabilities, changed.Process, changed.Linux = &capabilities, &process, &linux
		capabilities.Bounding = slices.Clone(capabilities.Bounding)
		o := Options{Bundle: dir, Spec: &changed, ID: containerID(t), Stage: empty}
		change(&changed, &o)
		c, err := Create(context.Background(), o)
		if err != nil {
			t.Fatal(name, err)
		}
		if err := c.Start(); err != nil {
			t.Error(name, err)
		}
		if name == "staged" || name == "without" {
			tables = append(tables, mountTable(c.Pid()))
		}
		p := process
		p.Args = []string{"sh", "-c", "cat /mnt/of /proc/keys; ls -A /sys/firmware; readlink /proc/self/root; ls -d /host/proc /mnt; echo x > /bin/x && echo written"}
		if out, _ := execIn(t, c, &p); out != "bound\n/\n/host/proc\n/mnt\nwritten\n" {
			t.Errorf("%s: exec: %s", name, out)
		}
		if name != "shared" { // its mounts would be taken off elsewhere, too
			names := beneath(t, c.Pid()) // for the others the kernel's first root file system
			bare := []string{"dev", stage.Empty[1:]}
			if of := c.group.Hierarchies(); len(of) > 0 {
				bare = append(bare, stage.Groups(of)[1:])
			}
			if slices.Equal(names, bare) != (name == "staged") {
				t.Errorf("%s: below the root lie %v", name, names)
			}
		}
		stop(t, c)
	}
	if len(tables) == 2 && !slices.Equal(tables[0], tables[1]) {
		t.Errorf("the mounts differ:\n%s\n\n%s", strings.Join(tables[0], "\n"), strings.Join(tables[1], "\n"))
	}
}

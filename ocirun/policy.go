package ocirun

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun/criu"
)

// The images of a checkpoint say what its processes may do, and CRIU believes
// them. What isolates a container is what its configuration says, here as at any
// start: what the images say beyond that is refused, or replaced.

// allowed checks what the threads may do, before there are any.
func (r *restoration) allowed() error {
	threads, err := criu.ReadCredentials(r.from.Images)
	if err != nil {
		return err
	}
	if len(threads) == 0 {
		return fault.New(fault.Invalid, "%s has no checkpoint of a process", r.from.Images)
	}
	held := ownPermitted()
	if (&builder{spec: r.spec}).userNamespace() {
		held = ^uint64(0)
	}
	most := parseCapabilities(r.spec.Process.Capabilities, held, func(string) {}).bounding
	filtered := r.spec.Linux.Seccomp != nil
	for _, t := range threads {
		switch {
		case t.Capabilities&^most != 0:
			return fault.New(fault.Invalid, "%s of the checkpoint has the capabilities %s, which the configuration does not give", t.Name, capabilityList(t.Capabilities&^most))
		case r.spec.Process.NoNewPrivileges && !t.NoNewPrivileges:
			return fault.New(fault.Invalid, "%s of the checkpoint may gain privileges, which the configuration forbids (noNewPrivileges)", t.Name)
		case filtered && !t.Filtered:
			return fault.New(fault.Invalid, "%s of the checkpoint has no seccomp filter, which the configuration wants", t.Name)
		}
	}
	if !filtered {
		return nil
	}
	f, err := compileFilter(r.spec.Linux.Seccomp)
	if err != nil {
		return err
	}
	return criu.SetFilter(r.from.Images, f.code)
}

// capabilityList names capabilities; those without a name by number.
func capabilityList(bits uint64) string {
	var names []string
	for i := range 64 {
		switch {
		case bits&(1<<i) == 0:
		case i < len(capabilityNames):
			names = append(names, "CAP_"+capabilityNames[i])
		default:
			names = append(names, strconv.Itoa(i))
		}
	}
	return strings.Join(names, " ")
}

// profile is the security module's, in CRIU's form; "" leaves what the images say.
func (r *restoration) profile() string {
	p := r.spec.Process
	switch {
	case r.from.LSMProfile != "":
		return r.from.LSMProfile
	case p.ApparmorProfile != "":
		return "apparmor:" + p.ApparmorProfile
	case p.SelinuxLabel != "":
		return "selinux:" + p.SelinuxLabel
	}
	return ""
}

// isolated checks the namespaces of the first process, which has not run yet.
func (r *restoration) isolated(pid int) error {
	for i := range r.spec.Linux.Namespaces {
		n := &r.spec.Linux.Namespaces[i]
		name := namespaceName(n.Type)
		var theirs, ours unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, name), &theirs); err != nil {
			return fault.New(fault.Internal, "look at the %s namespace of the restored process: %w", n.Type, err)
		}
		if n.Path != "" {
			if err := unix.Stat(n.Path, &ours); err != nil || ours.Ino != theirs.Ino {
				return fault.New(fault.Invalid, "the checkpoint is not one of a container that is in the %s namespace %s", n.Type, n.Path)
			}
			continue
		}
		if err := unix.Stat("/proc/self/ns/"+name, &ours); err != nil || ours.Ino == theirs.Ino {
			return fault.New(fault.Invalid, "the checkpoint is not one of a container with a %s namespace of its own, which the configuration wants", n.Type)
		}
		if n.Type != specs.UserNamespace {
			continue
		}
		if !mapped(pid, "uid_map", r.spec.Linux.UIDMappings) || !mapped(pid, "gid_map", r.spec.Linux.GIDMappings) {
			return fault.New(fault.Invalid, "the users of the checkpoint are mapped to others than the configuration says")
		}
	}
	return nil
}

// covered checks that what the configuration hides or protects is, in the mounts
// of the first process, which has not run yet.
func (r *restoration) covered(root int, mounts []mountLine) error {
	at := map[string]mountLine{} // the topmost of each place
	for _, m := range mounts {
		at[m.point] = m
	}
	for _, name := range r.spec.Linux.MaskedPaths {
		if _, there := at[resolveIn(root, name)]; !there && existsIn(root, name) {
			return fault.New(fault.Invalid, "the checkpoint is one of a container that sees %s, which the configuration hides", name)
		}
	}
	for _, name := range r.spec.Linux.ReadonlyPaths {
		if existsIn(root, name) && !at[resolveIn(root, name)].has("ro") {
			return fault.New(fault.Invalid, "the checkpoint is one of a container that may write to %s, which the configuration protects", name)
		}
	}
	if r.spec.Root.Readonly && !at["/"].has("ro") {
		return fault.New(fault.Invalid, "the checkpoint is one of a container that may write to its root, which the configuration protects")
	}
	for i := range r.spec.Mounts {
		m := &r.spec.Mounts[i]
		found, there := at[resolveIn(root, m.Destination)]
		if !there || strings.HasPrefix(m.Type, "cgroup") { // another mount may hide it
			continue
		}
		for _, option := range []string{"ro", "nosuid", "nodev", "noexec"} {
			if contains(m.Options, option) && !found.has(option) {
				return fault.New(fault.Invalid, "the checkpoint is one of a container whose mount %s has not the option %s, which the configuration wants", m.Destination, option)
			}
		}
	}
	return nil
}

// has tells whether the mount has an option.
func (m mountLine) has(option string) bool {
	return slices.Contains(strings.Split(m.options, ","), option)
}

// existsIn tells whether there is anything at a path below a root.
func existsIn(root int, name string) bool {
	fd, err := openBelow(root, below(name), unix.O_PATH)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// mapped compares a process's id map with the configuration's.
func mapped(pid int, file string, want []specs.LinuxIDMapping) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return false
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	wanted := strings.Split(strings.TrimSpace(mapText(want)), "\n")
	slices.Sort(lines)
	slices.Sort(wanted)
	return slices.Equal(lines, wanted)
}

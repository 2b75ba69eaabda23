package ocirun

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// ordinary tells that this process is an ordinary user's, who is root in user
// namespaces of their own alone.
func ordinary() bool { return unix.Geteuid() != 0 }

// checkRootless refuses what an ordinary user's container cannot have.
func checkRootless(s *specs.Spec) error {
	if !ordinary() {
		return nil
	}
	l := s.Linux
	if l == nil {
		return nil
	}
	at := slices.IndexFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	if at < 0 {
		return fault.New(fault.Invalid, "rootless container requires user namespaces")
	}
	if l.Namespaces[at].Path == "" {
		if len(l.UIDMappings) == 0 {
			return fault.New(fault.Invalid, "rootless containers requires at least one UID mapping")
		}
		if len(l.GIDMappings) == 0 {
			return fault.New(fault.Invalid, "rootless containers requires at least one GID mapping")
		}
		if p := s.Process; p != nil && len(p.User.AdditionalGids) > 0 && ownOnly(l.GIDMappings, unix.Getegid()) {
			return fault.New(fault.Invalid, "cannot set any additional groups in a rootless container")
		}
		for _, m := range s.Mounts {
			for _, option := range m.Options {
				for prefix, maps := range map[string][]specs.LinuxIDMapping{"uid=": l.UIDMappings, "gid=": l.GIDMappings} {
					text, ok := strings.CutPrefix(option, prefix)
					if id, err := strconv.ParseUint(text, 10, 32); ok && err == nil && !hasID(maps, uint32(id)) {
						return fault.New(fault.Invalid, "cannot specify %s mount option for rootless container: the ID is not mapped", option)
					}
				}
			}
		}
	}
	return nil
}

// hasID tells whether maps have an ID of the container.
func hasID(maps []specs.LinuxIDMapping, id uint32) bool {
	return slices.ContainsFunc(maps, func(m specs.LinuxIDMapping) bool { return id >= m.ContainerID && id-m.ContainerID < m.Size })
}

// ownOnly tells that maps have nothing but the user's own ID, which the kernel
// lets everybody map.
func ownOnly(maps []specs.LinuxIDMapping, own int) bool {
	return len(maps) == 1 && maps[0].Size == 1 && int(maps[0].HostID) == own
}

// writeMap writes the ID map of a process, by the program of uidmap(7) where
// this user may not: newuidmap(1) knows from /etc/subuid what is theirs.
func writeMap(pid int, file, tool string, maps []specs.LinuxIDMapping) error {
	if !ordinary() {
		return writeProc(pid, file, mapText(maps))
	}
	// The files of a process that shares our memory, which nobody may look into,
	// are root's.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }()
	if own := map[string]int{"uid_map": unix.Geteuid(), "gid_map": unix.Getegid()}[file]; ownOnly(maps, own) {
		if file == "gid_map" { // the kernel's condition, user_namespaces(7)
			if err := writeProc(pid, "setgroups", "deny"); err != nil {
				return err
			}
		}
		return writeProc(pid, file, mapText(maps))
	}
	program, err := exec.LookPath(tool)
	if err != nil {
		return fault.New(fault.Unavailable, "the container's IDs are mapped by %s, which is not there: install uidmap (shadow-utils), or map %d alone", tool, unix.Geteuid())
	}
	args := []string{strconv.Itoa(pid)}
	for _, m := range maps {
		for _, n := range [...]uint32{m.ContainerID, m.HostID, m.Size} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fault.New(fault.Invalid, "%s: %w: %s", tool, err, strings.TrimSpace(string(out)))
	}
	return nil
}

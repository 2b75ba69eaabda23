package spec

import (
	"path"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/internal/userns"
)

// mounts lists what is mounted in the container: the kernel's file systems,
// the engine's files, then what the user asked for, parents before children.
func mounts(in Input) ([]specs.Mount, error) {
	user, err := userMounts(in)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, m := range user {
		taken[m.Destination] = true
	}
	var list []specs.Mount
	for _, m := range append(kernelMounts(in), engineMounts(in)...) {
		if !taken[m.Destination] {
			list = append(list, m)
		}
	}
	sort.SliceStable(user, func(i, j int) bool { return depth(user[i].Destination) < depth(user[j].Destination) })
	return append(list, user...), nil
}

func depth(p string) int { return strings.Count(path.Clean(p), "/") }

// ttyGroup is the group that distributions call tty, which terminals are of.
const ttyGroup = 5

// hasID tells whether a user namespace has an ID: the kernel mounts no devpts for a
// group that it does not know.
func hasID(ranges []userns.Range, id uint32) bool {
	_, ok := userns.Outside(ranges, id)
	return ok
}

func kernelMounts(in Input) []specs.Mount {
	sys := "ro"
	if in.HostConfig.Privileged {
		sys = "rw"
	}
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if in.Users == nil || hasID(in.Users.GIDs, ttyGroup) {
		pts = append(pts, "gid="+strconv.Itoa(ttyGroup))
	}
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sys}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{sys, "nosuid", "noexec", "nodev"}},
	}
	if in.Users == nil || !in.HostConfig.IpcMode.IsHost() { // who is root in a user namespace does not mount the host's
		list = append(list, specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}})
	}
	switch ipc := in.HostConfig.IpcMode; {
	case ipc.IsHost():
		// A mount of mqueue shows the queues of the namespace, which is the host's: it
		// may have none mounted itself.
		list = append(list, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"bind", "nosuid", "noexec", "nodev"}})
	case ipc.IsContainer():
		list = append(list, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.Shm, Options: []string{"bind", "nosuid", "noexec", "nodev"}})
	case ipc.IsNone():
	default:
		list = append(list, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(in.HostConfig.ShmSize, 10)}})
	}
	return list
}

// engineMounts are the files that the engine writes for each container.
func engineMounts(in Input) []specs.Mount {
	var list []specs.Mount
	bind := func(source, target string, options ...string) {
		if source != "" {
			m := specs.Mount{Destination: target, Type: "bind", Source: source, Options: append([]string{"rbind", "rprivate"}, options...)}
			if in.Users != nil && target != InitTarget { // root's in the container, too
				m.UIDMappings, m.GIDMappings = outside(in.Users.UIDs), outside(in.Users.GIDs)
			}
			list = append(list, m)
		}
	}
	access := "rw"
	if in.HostConfig.ReadonlyRootfs {
		access = "ro"
	}
	bind(in.ResolvConf, "/etc/resolv.conf", access)
	bind(in.Hostname, "/etc/hostname", access)
	bind(in.Hosts, "/etc/hosts", access)
	bind(in.Init, InitTarget, "ro")
	return list
}

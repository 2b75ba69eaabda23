package spec

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
)

// mounts lists what is mounted in the container: the kernel's file systems,
// the engine's files, then what the user asked for, parents before children.
func mounts(in Input) ([]specs.Mount, error) {
	user, err := UserMounts(in.HostConfig)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, m := range user {
		if taken[m.Destination] {
			return nil, fault.New(fault.Invalid, "Duplicate mount point: %s", m.Destination)
		}
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

func kernelMounts(in Input) []specs.Mount {
	sys := "ro"
	if in.HostConfig.Privileged {
		sys = "rw"
	}
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sys}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{sys, "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
	switch ipc := in.HostConfig.IpcMode; {
	case ipc.IsHost():
		list[5] = specs.Mount{Destination: "/dev/mqueue", Type: "bind", Source: "/dev/mqueue", Options: []string{"bind", "nosuid", "noexec", "nodev"}}
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
			list = append(list, specs.Mount{Destination: target, Type: "bind", Source: source,
				Options: append([]string{"rbind", "rprivate"}, options...)})
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

// UserMounts are the mounts of -v, --mount and --tmpfs.
func UserMounts(h *wire.HostConfig) ([]specs.Mount, error) {
	list, err := userMounts(h)
	for _, m := range list {
		// The kernel would take what stands before it.
		if strings.ContainsRune(m.Source+m.Destination+strings.Join(m.Options, ","), 0) {
			return nil, fault.New(fault.Invalid, "invalid mount %q at %q: there is a NUL byte in it", m.Source, m.Destination)
		}
	}
	return list, err
}

func userMounts(h *wire.HostConfig) ([]specs.Mount, error) {
	var list []specs.Mount
	for _, b := range h.Binds {
		m, err := parseBind(b)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	for _, m := range h.Mounts {
		sm, err := fromMount(m)
		if err != nil {
			return nil, err
		}
		list = append(list, sm)
	}
	for target, options := range h.Tmpfs {
		if err := checkTarget(target); err != nil {
			return nil, err
		}
		opts := []string{"noexec", "nosuid", "nodev"}
		if options != "" {
			opts = append(opts, strings.Split(options, ",")...)
		}
		for _, o := range opts {
			if key, _, _ := strings.Cut(o, "="); !slices.Contains(tmpfsOptions, key) {
				return nil, fault.New(fault.Invalid, "invalid tmpfs option %q", o)
			}
		}
		list = append(list, specs.Mount{Destination: path.Clean(target), Type: "tmpfs", Source: "tmpfs", Options: opts})
	}
	return list, nil
}

// tmpfsOptions are what --tmpfs takes: the flags of mount(8) and tmpfs(5)'s
// own.
var tmpfsOptions = []string{
	"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "atime", "noatime", "diratime", "nodiratime",
	"relatime", "norelatime", "strictatime", "nostrictatime", "defaults", "private", "rprivate", "shared", "rshared", "slave", "rslave",
	"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol",
}

func checkTarget(target string) error {
	if !path.IsAbs(target) {
		return fault.New(fault.Invalid, "invalid mount path: '%s' mount path must be absolute", target)
	}
	if path.Clean(target) == "/" {
		return fault.New(fault.Invalid, "invalid specification: destination can't be '/'")
	}
	return nil
}

// parseBind reads source:target[:mode,…], the syntax of -v.
func parseBind(s string) (specs.Mount, error) {
	parts := strings.Split(s, ":")
	if len(parts) == 1 && path.IsAbs(s) {
		return specs.Mount{}, fault.New(fault.NotImplemented, "anonymous volumes are not supported yet: give %q a directory of the host, as in /path:%s", s, s)
	}
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return specs.Mount{}, fault.New(fault.Invalid, "invalid volume specification: '%s'", s)
	}
	if err := checkTarget(parts[1]); err != nil {
		return specs.Mount{}, fmt.Errorf("invalid volume specification: '%s': invalid mount config for type \"bind\": %w", s, err)
	}
	if !path.IsAbs(parts[0]) {
		return specs.Mount{}, fault.New(fault.NotImplemented,
			"named volumes are not supported yet: give %q as an absolute path on the host", parts[0])
	}
	m := specs.Mount{Destination: path.Clean(parts[1]), Type: "bind", Source: path.Clean(parts[0])}
	if len(parts) == 2 {
		parts = append(parts, "")
	}
	options, err := bindMode(parts[2], s)
	m.Options = options
	return m, err
}

// bindMode turns the third part of -v into mount options. Of each kind there
// may be one.
func bindMode(mode, whole string) ([]string, error) {
	if mode == "" {
		return []string{"rbind", "rprivate"}, nil
	}
	var options []string
	propagation, kinds := "rprivate", map[string]bool{}
	for o := range strings.SplitSeq(mode, ",") {
		kind := ""
		switch o {
		case "ro", "rw":
			kind = "access"
			if o == "ro" {
				o = readOnlyTree
			}
			options = append(options, o)
		case "shared", "rshared":
			return nil, fault.New(fault.NotImplemented, "the bind propagation %q of %q is not supported yet: rslave shows the host's mounts to the container", o, whole)
		case "private", "rprivate", "slave", "rslave":
			kind = "propagation"
			propagation = o
		case "consistent", "cached", "delegated": // of meaning on other hosts only
			kind = "consistency"
		case "z", "Z": // labels for containers that SELinux confines: it never does ours, nor Docker's without selinux-enabled
			kind = "label"
		case "nocopy", "volume-nocopy":
			return nil, fault.New(fault.NotImplemented, "the mount option %q of %q is not supported yet", o, whole)
		}
		if kind == "" || kinds[kind] {
			return nil, fault.New(fault.Invalid, "invalid mode: %s", mode)
		}
		kinds[kind] = true
	}
	return append(options, "rbind", propagation), nil
}

// fromMount converts one --mount.
func fromMount(m mount.Mount) (specs.Mount, error) {
	if m.Target == "" {
		return specs.Mount{}, fault.New(fault.Invalid, "invalid mount config for type %q: field Target must not be empty", m.Type)
	}
	if err := checkTarget(m.Target); err != nil {
		return specs.Mount{}, fmt.Errorf("invalid mount config for type %q: %w", m.Type, err)
	}
	for field, is := range map[string]bool{
		"BindOptions":    m.BindOptions != nil && m.Type != mount.TypeBind,
		"VolumeOptions":  m.VolumeOptions != nil && m.Type != mount.TypeVolume,
		"ImageOptions":   m.ImageOptions != nil && m.Type != mount.TypeImage,
		"TmpfsOptions":   m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs,
		"ClusterOptions": m.ClusterOptions != nil && m.Type != mount.TypeCluster,
	} {
		if is {
			return specs.Mount{}, fault.New(fault.Invalid, "invalid mount config for type %q: field %s must not be specified", m.Type, field)
		}
	}
	out := specs.Mount{Destination: path.Clean(m.Target), Source: m.Source}
	switch m.Type {
	case mount.TypeBind:
		return bindMount(out, m)
	case mount.TypeTmpfs:
		return tmpfsMount(out, m)
	case mount.TypeVolume, mount.TypeImage, mount.TypeCluster:
		return out, fault.New(fault.NotImplemented, "mounts of type %q are not supported yet", m.Type)
	}
	return out, fault.New(fault.Invalid, "invalid mount config for type %q: mount type unknown", m.Type)
}

func bindMount(out specs.Mount, m mount.Mount) (specs.Mount, error) {
	if m.Source == "" {
		return out, fault.New(fault.Invalid, `invalid mount config for type "bind": field Source must not be empty`)
	}
	if !path.IsAbs(m.Source) {
		return out, fault.New(fault.Invalid, "invalid mount config for type %q: invalid mount path: '%s' mount path must be absolute", m.Type, m.Source)
	}
	out.Type = "bind"
	kind, propagation, readOnly := "rbind", "rprivate", readOnlyTree
	if o := m.BindOptions; o != nil {
		if err := checkBindOptions(m.ReadOnly, o); err != nil {
			return out, err
		}
		if o.NonRecursive {
			kind = "bind"
		}
		if o.Propagation != "" {
			propagation = string(o.Propagation)
		}
		if o.ReadOnlyNonRecursive {
			readOnly = "ro"
		}
	}
	out.Options = []string{kind, propagation}
	if m.ReadOnly {
		out.Options = append(out.Options, readOnly)
	}
	return out, nil
}

// readOnlyTree makes what is mounted below the source read-only too, as Docker
// does.
const readOnlyTree = "rro"

func checkBindOptions(readOnly bool, o *mount.BindOptions) error {
	conflict := func(what string) error { return fault.New(fault.Invalid, "mount options conflict: %s", what) }
	switch {
	case o.Propagation != "" && !slices.Contains(mount.Propagations, o.Propagation):
		return fault.New(fault.Invalid, `invalid mount config for type "bind": invalid propagation mode: %s`, o.Propagation)
	case o.Propagation == mount.PropagationShared || o.Propagation == mount.PropagationRShared:
		return fault.New(fault.NotImplemented, "the bind propagation %q is not supported yet: rslave shows the host's mounts to the container", o.Propagation)
	case !readOnly && o.ReadOnlyNonRecursive:
		return conflict("!ReadOnly && BindOptions.ReadOnlyNonRecursive")
	case !readOnly && o.ReadOnlyForceRecursive:
		return conflict("!ReadOnly && BindOptions.ReadOnlyForceRecursive")
	case o.ReadOnlyNonRecursive && o.ReadOnlyForceRecursive:
		return conflict("ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")
	}
	return nil
}

func tmpfsMount(out specs.Mount, m mount.Mount) (specs.Mount, error) {
	if m.Source != "" {
		return out, fault.New(fault.Invalid, `invalid mount config for type "tmpfs": field Source must not be specified`)
	}
	out.Type, out.Source = "tmpfs", "tmpfs"
	out.Options = []string{"noexec", "nosuid", "nodev"}
	if o := m.TmpfsOptions; o != nil {
		if o.SizeBytes > 0 {
			out.Options = append(out.Options, "size="+strconv.FormatInt(o.SizeBytes, 10))
		}
		if o.Mode != 0 {
			out.Options = append(out.Options, "mode="+strconv.FormatUint(uint64(o.Mode), 8))
		}
		if o.SizeBytes < 0 {
			return out, fault.New(fault.Invalid, `invalid mount config for type "tmpfs": size cannot be negative`)
		}
		for _, kv := range o.Options {
			if len(kv) != 1 || kv[0] != "exec" && kv[0] != "noexec" {
				return out, fault.New(fault.Invalid, `invalid mount config for type "tmpfs": invalid option: %s`, strings.Join(kv, "="))
			}
			out.Options = append(out.Options, kv[0])
		}
	}
	if m.ReadOnly {
		out.Options = append(out.Options, "ro")
	}
	return out, nil
}

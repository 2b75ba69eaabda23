// Package spec turns a container's stored request into the OCI runtime
// configuration that a runtime reads: a pure step, the last of the three
// shapes that a flag passes through (flag, request, specification). It opens
// nothing but device nodes that the request names, to learn their numbers.
package spec

import (
	"path"
	"slices"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/internal/userns"
)

// Input is all that decides a container's configuration.
type Input struct {
	ID         string
	Config     *wire.Config
	HostConfig *wire.HostConfig
	Mounts     []Mount // the user's and the image's, with where each lies on the host
	Path       string  // the program and its arguments, resolved from entrypoint and command
	Args       []string
	Rootfs     string // root.path, where the supervising process mounts the root
	User       Identity
	Init       string // path of the init program on the host, when one is wanted

	CgroupParent string             // of containers that name none
	Systemd      bool               // makes the control groups; the parent is a slice
	Files        *specs.POSIXRlimit // limit of open files for who asks for none; nil to inherit it

	// The daemon's word where SecurityOpt has none.
	NoNewPrivileges bool
	Seccomp         string // "" the built-in profile, "unconfined", or a profile as JSON

	AppArmor                 string // profile of who asks for none; "" where there are none
	ProcessLabel, MountLabel string // contexts of SELinux; "" for none

	OOMAdjusted bool // OomScoreAdj counts when it is 0 too: it is not what would be inherited

	// Namespace paths to join, "" for a new one; "host" for none.
	NetNS, PidNS, IpcNS string

	// Users are what the container's IDs are outside, and UserNS the namespace to join
	// that has this map; nil and "" for the host's IDs.
	Users  *userns.Map
	UserNS string

	// Shm is a directory that takes the place of the container's own /dev/shm:
	// that of the container whose IPC namespace it joins.
	Shm string

	// Files that the engine writes and binds over the image's, "" for none.
	Hosts, Hostname, ResolvConf string

	Linked []string // variables about linked containers, which the user's own go before

	UTSName string // the host name in the container
}

// Build makes the configuration. Errors are faults of kind Invalid with the
// sentence that Docker gives for the same mistake.
func Build(in Input) (*specs.Spec, error) {
	h := in.HostConfig
	process, err := initProcess(in)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     ociVersion,
		Hostname:    in.UTSName,
		Domainname:  in.Config.Domainname,
		Root:        &specs.Root{Path: in.Rootfs, Readonly: h.ReadonlyRootfs},
		Process:     process,
		Annotations: h.Annotations,
		Linux: &specs.Linux{
			CgroupsPath:   cgroupsPath(in),
			Namespaces:    namespaces(in),
			MaskedPaths:   slices.Clone(maskedPaths),
			ReadonlyPaths: slices.Clone(readonlyPaths),
		},
	}
	if h.UTSMode.IsHost() {
		s.Hostname, s.Domainname = "", ""
	}
	if h.MaskedPaths != nil {
		s.Linux.MaskedPaths = h.MaskedPaths
	}
	if h.ReadonlyPaths != nil {
		s.Linux.ReadonlyPaths = h.ReadonlyPaths
	}
	if s.Mounts, err = mounts(in); err != nil {
		return nil, err
	}
	if s.Linux.RootfsPropagation, err = propagation(in.Mounts); err != nil {
		return nil, err
	}
	if s.Linux.Resources, s.Linux.Devices, err = resources(in); err != nil {
		return nil, err
	}
	s.Linux.Sysctl = sysctls(in)
	if in.Users != nil {
		s.Linux.UIDMappings, s.Linux.GIDMappings = outside(in.Users.UIDs), outside(in.Users.GIDs)
	}
	if err := secure(s, in); err != nil {
		return nil, err
	}
	return s, nil
}

// initProcess is the container's first process.
func initProcess(in Input) (*specs.Process, error) {
	args := append([]string{in.Path}, in.Args...)
	if in.Init != "" {
		args = append([]string{InitTarget, "--"}, args...)
	}
	caps, err := capabilities(in.HostConfig.CapAdd, in.HostConfig.CapDrop, in.HostConfig.Privileged)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(in.HostConfig.Ulimits, in.Files)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Terminal:     in.Config.Tty,
		User:         in.User.process(),
		Args:         args,
		Env:          Env(in.env(), in.UTSName, in.User.Home, in.Config.Tty),
		Cwd:          "/",
		Capabilities: sets(caps, in.User.UID == 0),
		Rlimits:      limits,
	}
	if in.Config.WorkingDir != "" {
		p.Cwd = path.Clean(in.Config.WorkingDir)
	}
	if size := in.HostConfig.ConsoleSize; p.Terminal && size[0] > 0 && size[1] > 0 {
		p.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
	}
	if adj := in.HostConfig.OomScoreAdj; adj != 0 || in.OOMAdjusted {
		p.OOMScoreAdj = &adj
	}
	if in.HostConfig.Umask != nil {
		p.User.Umask = in.HostConfig.Umask
	}
	return p, nil
}

// env is the environment that was asked for, after what links tell.
func (in *Input) env() []string {
	if len(in.Linked) == 0 {
		return in.Config.Env
	}
	return slices.Concat(in.Linked, in.Config.Env)
}

// Env completes an environment as Docker does: PATH, HOSTNAME, TERM for a
// terminal and HOME stand first and give way to what the user set.
func Env(user []string, hostname, home string, tty bool) []string {
	base := []string{"PATH=" + defaultPath, "HOSTNAME=" + hostname}
	if tty {
		base = append(base, "TERM=xterm")
	}
	env := Override(base, user)
	for _, kv := range env {
		if strings.HasPrefix(kv, "HOME=") && len(kv) > len("HOME=") {
			return env
		}
	}
	return append(slices.DeleteFunc(env, func(kv string) bool { return kv == "HOME=" }), "HOME="+home)
}

// Override returns base with the variables of over set, or removed where over
// names one without "=".
func Override(base, over []string) []string {
	env := slices.Clone(base)
	at := make(map[string]int, len(env)+len(over))
	for i, kv := range env {
		key, _, _ := strings.Cut(kv, "=")
		at[key] = i
	}
	for _, kv := range over {
		key, _, set := strings.Cut(kv, "=")
		i, known := at[key]
		switch {
		case !set && known:
			env[i] = ""
		case !set:
		case known:
			env[i] = kv
		default:
			at[key] = len(env)
			env = append(env, kv)
		}
	}
	return slices.DeleteFunc(env, func(kv string) bool { return kv == "" })
}

// cgroupsPath is a directory of each hierarchy, or what systemd's unit is called:
// SLICE:PREFIX:NAME.
func cgroupsPath(in Input) string {
	parent := in.CgroupParent
	if p := in.HostConfig.CgroupParent; p != "" {
		parent = p
	}
	if in.Systemd {
		return parent + ":tare:" + in.ID
	}
	return path.Join("/", parent, in.ID)
}

func namespaces(in Input) []specs.LinuxNamespace {
	h := in.HostConfig
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if in.Users != nil {
		ns = append(ns, specs.LinuxNamespace{Type: specs.UserNamespace, Path: in.UserNS})
	}
	if in.NetNS != "host" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: in.NetNS})
	}
	if !h.UTSMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.UTSNamespace})
	}
	if in.PidNS != "host" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: in.PidNS})
	}
	if !h.IpcMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.IPCNamespace, Path: in.IpcNS})
	}
	if !h.CgroupnsMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return ns
}

// sysctls are the user's, after the one that Docker sets to let any user of
// the container bind low ports of its own network.
func sysctls(in Input) map[string]string {
	own := in.NetNS == "" || strings.HasPrefix(in.NetNS, "/proc/self/")
	if !own {
		return in.HostConfig.Sysctls
	}
	m := map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
	if in.Users != nil { // no group that the namespace does not have
		m["net.ipv4.ping_group_range"] = "0 " + strconv.FormatUint(uint64(in.Users.GIDs[0].Count-1), 10)
	}
	for k, v := range in.HostConfig.Sysctls {
		m[k] = v
	}
	return m
}

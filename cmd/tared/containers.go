package main

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"strings"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/container/confine"
	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/users"
	"github.com/tarehq/tare/fault"
)

// containerOptions are what containers get that ask for nothing else.
type containerOptions struct {
	Ulimits         ulimits      `json:"default-ulimits"`
	ShmSize         byteSize     `json:"default-shm-size"`
	IpcMode         string       `json:"default-ipc-mode"`
	CgroupnsMode    string       `json:"default-cgroupns-mode"`
	Init            bool         `json:"init"`
	InitPath        string       `json:"init-path"`
	NoNewPrivileges bool         `json:"no-new-privileges"`
	Seccomp         string       `json:"seccomp-profile"`
	SELinux         bool         `json:"selinux-enabled"`
	CgroupParent    string       `json:"cgroup-parent"`
	ExecOpts        []string     `json:"exec-opts"`
	RealtimePeriod  int64        `json:"cpu-rt-period"`
	RealtimeRuntime int64        `json:"cpu-rt-runtime"`
	DNS             []netip.Addr `json:"dns"`
	DNSOptions      []string     `json:"dns-opts"`
	DNSSearch       []string     `json:"dns-search"`
	HostGateways    []netip.Addr `json:"host-gateway-ips"`
	PublishIP       netip.Addr   `json:"ip"`
	UsernsRemap     string       `json:"userns-remap"`
	UsernsAuto      string       `json:"userns-auto"`

	systemd     bool // makes the control groups
	ids         users.IDs
	storageSize uint64 // bytes that a container may write that does not say; 0 for any

	seccomp string // the profile as JSON; "" and "unconfined" as container.Settings has them
}

// defaultParent is the cgroup below which those of containers are made.
const defaultParent = "/tare"

func plainText(s string) (string, error) { return s, nil }

func (c *containerOptions) flags(f *pflag.FlagSet) {
	c.Ulimits = ulimits{}
	c.ShmSize = 64 << 20
	f.Var(c.Ulimits, "default-ulimit", "Limit of resources, NAME=SOFT[:HARD], of containers that set none of that name")
	f.Var(&c.ShmSize, "default-shm-size", "Size of /dev/shm")
	f.StringVar(&c.IpcMode, "default-ipc-mode", "private", `IPC mode ("shareable"|"private")`)
	f.StringVar(&c.CgroupnsMode, "default-cgroupns-mode", "private", `Cgroup namespace ("host"|"private")`)
	f.BoolVar(&c.Init, "init", false, "Run an init in each container, to forward signals and reap processes")
	f.StringVar(&c.InitPath, "init-path", "", "Program that runs as the first process with --init (default tare-init beside tared)")
	f.BoolVar(&c.NoNewPrivileges, "no-new-privileges", false, "Set no-new-privileges for containers that do not say")
	f.StringVar(&c.Seccomp, "seccomp-profile", "builtin", `Path of the seccomp profile, "builtin" or "unconfined"`)
	f.BoolVar(&c.SELinux, "selinux-enabled", false, "Give containers labels of SELinux")
	f.StringVar(&c.CgroupParent, "cgroup-parent", defaultParent, "Cgroup below which those of the containers are made")
	f.StringArrayVar(&c.ExecOpts, "exec-opt", nil, "Option of the runtime: native.cgroupdriver=cgroupfs|systemd")
	f.Int64Var(&c.RealtimePeriod, "cpu-rt-period", 0, "Period of real-time processes in the parent cgroup of all containers, in microseconds (cgroup v1)")
	f.Int64Var(&c.RealtimeRuntime, "cpu-rt-runtime", 0, "What they may run in each period, in microseconds")
	f.Var(listValue[netip.Addr]{&c.DNS, parseAddr, "list"}, "dns", "DNS server")
	f.Var(listValue[string]{&c.DNSOptions, plainText, "list"}, "dns-opt", "Option of the resolver")
	f.Var(listValue[string]{&c.DNSSearch, checkDomain, "list"}, "dns-search", "DNS search domain")
	f.Var(listValue[netip.Addr]{&c.HostGateways, parseAddr, "list"}, "host-gateway-ip", "Address, one of each kind, that host-gateway stands for in --add-host (default the bridge's)")
	f.StringVar(&c.UsernsRemap, "userns-remap", "", `Whose IDs of /etc/subuid and /etc/subgid all containers have: USER[:GROUP], or "default" for dockremap, who is made`)
	f.StringVar(&c.UsernsAuto, "userns-auto", defaultAuto, "Whose IDs of /etc/subuid and /etc/subgid containers with --userns=auto share out, each some of its own")
	f.Var(addrValue{&c.PublishIP}, "ip", "Address of the host at which ports are published (default 0.0.0.0)")
}

// check refuses what no container could be given.
func (c *containerOptions) check() error {
	if c.IpcMode != "" && c.IpcMode != "private" && c.IpcMode != "shareable" {
		if api.IpcMode(c.IpcMode).Valid() {
			return fault.New(fault.Invalid, `IPC mode "%s" is not supported as default value; use "shareable" or "private"`, c.IpcMode)
		}
		return fault.New(fault.Invalid, `default IPC mode setting (%s) is invalid; use "shareable" or "private"`, c.IpcMode)
	}
	if !api.CgroupnsMode(c.CgroupnsMode).Valid() {
		return fault.New(fault.Invalid, `invalid default cgroup namespace (%s): use "host" or "private"`, c.CgroupnsMode)
	}
	if c.RealtimePeriod != 0 && c.RealtimeRuntime > c.RealtimePeriod {
		return fault.New(fault.Invalid, "cpu real-time runtime cannot be higher than cpu real-time period")
	}
	if c.ShmSize < 0 {
		return fault.New(fault.Invalid, "SHM size can not be less than 0")
	}
	for _, domain := range c.DNSSearch {
		if _, err := checkDomain(domain); err != nil {
			return err
		}
	}
	for _, step := range []func() error{c.Ulimits.check, c.checkExecOpts, c.checkHostGateways, c.readSeccomp, c.checkUsers} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *containerOptions) checkExecOpts() error {
	for _, opt := range c.ExecOpts {
		key, value, ok := strings.Cut(opt, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		switch {
		case !ok || key == "" || value == "":
			return fault.New(fault.Invalid, "invalid exec-opt (%s): must be formatted 'opt=value'", opt)
		case key == "isolation":
			return fault.New(fault.Invalid, "invalid exec-opt (%s): option '%s' is only supported on windows", opt, key)
		case key != "native.cgroupdriver":
			return fault.New(fault.Invalid, "invalid exec-opt (%s): unknown option: '%s'", opt, key)
		case value != "cgroupfs" && value != "systemd":
			return fault.New(fault.Invalid, `native.cgroupdriver option %s not supported`, value)
		default:
			c.systemd = value == "systemd"
		}
	}
	if !c.systemd {
		return nil
	}
	if c.RealtimePeriod != 0 || c.RealtimeRuntime != 0 {
		return fault.New(fault.NotImplemented, "systemd has no real-time budgets for its slices: use --exec-opt=native.cgroupdriver=cgroupfs with --cpu-rt-period and --cpu-rt-runtime")
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return fault.New(fault.Unavailable, "--exec-opt=native.cgroupdriver=systemd needs systemd, which does not run on this machine: leave the option out")
	}
	if c.CgroupParent == defaultParent {
		c.CgroupParent = "system.slice"
	}
	return container.CheckSlice(c.CgroupParent)
}

// cgroupDriver is who makes the control groups, as clients are told.
func (c *containerOptions) cgroupDriver() string {
	if c.systemd {
		return "systemd"
	}
	return "cgroupfs"
}

func (c *containerOptions) checkHostGateways() error {
	var v4, v6 int
	for _, a := range c.HostGateways {
		if a.Unmap().Is4() {
			v4++
		} else {
			v6++
		}
	}
	switch {
	case v4 > 1:
		return fault.New(fault.Invalid, "only one IPv4 host gateway IP address can be specified")
	case v6 > 1:
		return fault.New(fault.Invalid, "only one IPv6 host gateway IP address can be specified")
	}
	return nil
}

// readSeccomp reads the profile, which may change afterwards.
func (c *containerOptions) readSeccomp() error {
	switch c.Seccomp {
	case "", "builtin":
		c.Seccomp = "builtin"
		return nil
	case "unconfined":
		c.seccomp = c.Seccomp
		return nil
	}
	text, err := os.ReadFile(c.Seccomp)
	if err != nil {
		return fault.New(fault.Invalid, "opening seccomp profile (%s) failed: %w", c.Seccomp, err)
	}
	if _, err := seccomp.LoadProfile(string(text), &specs.Spec{Process: &specs.Process{}}); err != nil {
		return fault.New(fault.Invalid, "invalid seccomp profile %s: %w", c.Seccomp, err)
	}
	c.seccomp = string(text)
	return nil
}

var domainPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?$`)

// checkDomain takes a search domain; "." alone means none.
func checkDomain(s string) (string, error) {
	if s = strings.TrimSpace(s); s == "." {
		return s, nil
	}
	name := strings.Trim(s, ".")
	if len(name) > 255 || !domainPattern.MatchString(name) || !strings.ContainsFunc(name, func(r rune) bool { return r < '0' || r > '9' }) {
		return "", fault.New(fault.Invalid, "%s is not a valid domain", s)
	}
	return name, nil
}

// settings is what the service of the containers is told.
func (o *options) settings() create.Settings {
	return create.Settings{
		Runtimes: o.runtimes(), DefaultRuntime: o.DefaultRuntime,
		Ulimits: o.Ulimits.list(), ShmSize: int64(o.ShmSize), IpcMode: api.IpcMode(o.IpcMode), CgroupnsMode: api.CgroupnsMode(o.CgroupnsMode),
		Init: o.Init, NoNewPrivileges: o.NoNewPrivileges, Seccomp: o.seccomp,
		DNS: o.DNS, DNSOptions: o.DNSOptions, DNSSearch: o.DNSSearch, HostGateways: o.HostGateways, PublishIP: o.PublishIP, OOMAdjusted: o.OOMScoreAdjust != 0, StorageSize: o.storageSize,
	}
}

// confinement is what the kernel's security modules do for containers.
func (o *options) confinement(log *slog.Logger) container.Confinement {
	c := container.Confinement{AppArmor: confine.AppArmor(), Profiles: confine.Enforced(), SELinux: o.SELinux && confine.SELinux()}
	if o.SELinux && !c.SELinux {
		log.Warn("there are no labels for containers: the kernel has no SELinux, or no policy for it", "flag", "--selinux-enabled")
	}
	if c.AppArmor {
		if err := confine.Load(); err != nil {
			log.Error("containers cannot be started before this is mended", "err", err)
		}
	}
	return c
}

// initProgram finds the program for --init; "" when there is none.
func (o *options) initProgram() (string, error) {
	path := o.InitPath
	if path == "" {
		var err error
		if path, err = findProgram("tare-init"); err != nil {
			if !o.Init {
				err = nil
			}
			return "", err
		}
	}
	if _, err := os.Stat(path); err != nil && (o.Init || !errors.Is(err, os.ErrNotExist)) {
		return "", fault.New(fault.Invalid, "cannot use the init program: %w", err)
	}
	return path, nil
}

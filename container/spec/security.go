package spec

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
)

// security is what --security-opt asks for.
type security struct {
	seccomp         string // "" the default profile, "unconfined", or a profile as JSON
	noNewPrivileges bool
	plainSystem     bool  // systempaths=unconfined: nothing masked or read-only
	writableCgroups *bool // nil for what --privileged says

	appArmor string   // the profile's name; "" for the default
	labels   []string // of SELinux: disable, or KIND:VALUE
}

// security is what the container's options say, and the daemon's defaults where
// they say nothing.
func (in Input) security() (security, error) {
	s := security{noNewPrivileges: in.NoNewPrivileges}
	if !in.HostConfig.Privileged {
		s.seccomp = in.Seccomp
	}
	return parseSecurity(in.HostConfig.SecurityOpt, s)
}

// parseSecurity reads the options in both of Docker's spellings, key=value
// and the older key:value, over what s says already.
func parseSecurity(opts []string, s security) (security, error) {
	for _, opt := range opts {
		switch opt {
		case "no-new-privileges", "writable-cgroups":
			opt += "=true"
		case "disable": // how label=disable began
			opt = "label=disable"
		}
		key, value, ok := strings.Cut(opt, "=")
		if !ok {
			if key, value, ok = strings.Cut(opt, ":"); !ok {
				return s, fault.New(fault.Invalid, "invalid --security-opt 1: %q", opt)
			}
		}
		switch key {
		case "seccomp":
			s.seccomp = value
			if value == "builtin" {
				s.seccomp = ""
			}
		case "no-new-privileges":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return s, fault.New(fault.Invalid, "invalid --security-opt 2: %q", opt)
			}
			s.noNewPrivileges = on
		case "systempaths":
			if value != "unconfined" {
				return s, fault.New(fault.Invalid, "invalid --security-opt 2: %q", opt)
			}
			s.plainSystem = true
		case "writable-cgroups":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return s, fault.New(fault.Invalid, "invalid --security-opt 2: %q", opt)
			}
			s.writableCgroups = &on
		case "apparmor":
			// The kernel takes off space around a name and all from a NUL on, and
			// would put something else in force than what was asked for.
			if strings.TrimSpace(value) != value || strings.ContainsFunc(value, unicode.IsControl) {
				return s, fault.New(fault.Invalid, "invalid --security-opt 2: %q", opt)
			}
			s.appArmor = value
		case "label":
			s.labels = append(s.labels, value)
		default:
			return s, fault.New(fault.Invalid, "invalid --security-opt 2: %q", opt)
		}
	}
	return s, nil
}

// Modules tells which of the kernel's security modules can be asked for something.
type Modules struct {
	AppArmor bool // profiles by their name
	SELinux  bool // labels
}

// check refuses what nobody would enforce.
func (m Modules) check(s security) error {
	if s.appArmor != "" && s.appArmor != "unconfined" && !m.AppArmor {
		return fault.New(fault.NotImplemented, "the AppArmor profile %q cannot be put in force: this kernel does not use AppArmor; use apparmor=unconfined", s.appArmor)
	}
	for _, label := range s.labels {
		if label != "disable" && !m.SELinux {
			return fault.New(fault.NotImplemented, "the SELinux label %q cannot be put in force: the daemon runs without SELinux (--selinux-enabled); use label=disable", label)
		}
	}
	return nil
}

// Labels are the options about SELinux, as they were asked for.
func Labels(opts []string) []string {
	s, err := parseSecurity(opts, security{})
	if err != nil { // of an older daemon that took what is refused today
		return nil
	}
	return s.labels
}

// Profile is the profile of AppArmor that a container's processes run under, if
// standard is that of those that ask for nothing; "" where there is none.
func Profile(h *wire.HostConfig, standard string) string {
	s, err := parseSecurity(h.SecurityOpt, security{})
	switch {
	case err == nil && s.appArmor != "":
		return s.appArmor
	case standard != "" && h.Privileged:
		return "unconfined"
	}
	return standard
}

// secure adds what the security options and --privileged decide.
func secure(s *specs.Spec, in Input) error {
	opts, err := in.security()
	if err != nil {
		return err
	}
	s.Process.NoNewPrivileges = opts.noNewPrivileges
	in.confine(s.Process)
	s.Linux.MountLabel = in.MountLabel
	if opts.writableCgroups != nil {
		letWriteCgroups(s.Mounts, *opts.writableCgroups)
	}
	if opts.plainSystem || in.HostConfig.Privileged {
		// What was asked for by its name counts all the same.
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = in.HostConfig.MaskedPaths, in.HostConfig.ReadonlyPaths
	}
	if opts.seccomp == "unconfined" || in.HostConfig.Privileged && opts.seccomp == "" {
		return nil
	}
	// The profile depends on the capabilities: some calls are open only to
	// who holds one. The bounding set counts, as a set-uid program may gain it.
	if opts.seccomp == "" {
		s.Linux.Seccomp, err = defaultProfile(s)
		return err
	}
	profile, err := seccomp.LoadProfile(opts.seccomp, s)
	if err != nil {
		return fault.New(fault.Invalid, "invalid seccomp profile: %w", err)
	}
	s.Linux.Seccomp = profile
	return nil
}

// confine puts a process under the kernel's security modules.
func (in Input) confine(p *specs.Process) {
	p.ApparmorProfile, p.SelinuxLabel = Profile(in.HostConfig, in.AppArmor), in.ProcessLabel
	if in.AppArmor == "" && p.ApparmorProfile == "unconfined" {
		p.ApparmorProfile = "" // there may be no AppArmor to say it to
	}
}

// letWriteCgroups mounts the container's control group writable, or not.
func letWriteCgroups(mounts []specs.Mount, on bool) {
	access := map[bool]string{true: "rw", false: "ro"}
	for i := range mounts {
		if at := slices.Index(mounts[i].Options, access[!on]); at >= 0 && mounts[i].Type == "cgroup" {
			mounts[i].Options[at] = access[on]
		}
	}
}

// CheckSecurity tells whether the options can be understood, before anything
// is made.
func CheckSecurity(opts []string, there Modules) error {
	s, err := parseSecurity(opts, security{})
	if err == nil {
		err = there.check(s)
	}
	if err == nil && s.seccomp != "" && s.seccomp != "unconfined" {
		if _, err := seccomp.LoadProfile(s.seccomp, &specs.Spec{Process: &specs.Process{}}); err != nil {
			return fault.New(fault.Invalid, "invalid seccomp profile: %w", err)
		}
	}
	return err
}

// builtin is the default profile for the default capabilities, what nearly
// every container gets; making it costs more than all the rest of a
// specification.
var builtin = struct {
	caps    []string
	profile *specs.LinuxSeccomp
	text    []byte // as JSON
}{}

func defaultProfile(s *specs.Spec) (*specs.LinuxSeccomp, error) {
	caps := s.Process.Capabilities.Bounding
	if builtin.profile != nil && slices.Equal(caps, builtin.caps) {
		return builtin.profile, nil
	}
	return seccomp.GetDefaultProfile(s)
}

// Warm makes the default seccomp profile once, so that no start pays for it.
// It is called before anything runs beside it.
func Warm() error {
	caps, err := capabilities(nil, nil, false)
	if err != nil {
		return err
	}
	s := &specs.Spec{Process: &specs.Process{Capabilities: sets(caps, true)}}
	profile, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return err
	}
	builtin.caps, builtin.profile = caps, profile
	builtin.text, err = json.Marshal(profile)
	return err
}

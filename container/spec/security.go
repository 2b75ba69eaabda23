package spec

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"

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
			continue
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
			if value != "unconfined" && value != "" {
				return s, fault.New(fault.NotImplemented, "the AppArmor profile %q cannot be put in force: %s; use apparmor=unconfined", value, appArmor())
			}
		case "label":
			if value != "disable" {
				return s, fault.New(fault.NotImplemented, "the SELinux label %q cannot be put in force: the daemon runs without SELinux; use label=disable", value)
			}
		default:
			return s, fault.New(fault.Invalid, "invalid --security-opt 2: %q", opt)
		}
	}
	return s, nil
}

// appArmor says why there are no profiles.
func appArmor() string {
	if _, err := os.Stat("/sys/module/apparmor"); err != nil {
		return "this kernel has no AppArmor"
	}
	return "loading profiles is not supported yet"
}

// secure adds what the security options and --privileged decide.
func secure(s *specs.Spec, in Input) error {
	opts, err := in.security()
	if err != nil {
		return err
	}
	s.Process.NoNewPrivileges = opts.noNewPrivileges
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
func CheckSecurity(opts []string) error {
	s, err := parseSecurity(opts, security{})
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

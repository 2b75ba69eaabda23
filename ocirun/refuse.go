package ocirun

import (
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// check refuses a specification that is wrong or asks for what is not
// supported. Nothing in a specification is ignored silently.
func check(s *specs.Spec) error {
	switch {
	case s.Process == nil:
		return fault.New(fault.Invalid, "config.json has no process")
	case s.Root == nil || s.Root.Path == "":
		return fault.New(fault.Invalid, "config.json has no root.path")
	case s.Linux == nil:
		return fault.New(fault.Invalid, "config.json has no linux section")
	}
	major, _, _ := strings.Cut(s.Version, ".")
	if s.Version != "" && major != "1" {
		return fault.New(fault.Invalid, "config.json is of the specification %s; 1.x is supported", s.Version)
	}
	if err := checkProcess(s.Process); err != nil {
		return err
	}
	return checkLinux(s)
}

func later(field string) error {
	return fault.New(fault.NotImplemented, "%s is not supported yet", field)
}

// checkProcess looks at what init and further processes have in common.
func checkProcess(p *specs.Process) error {
	if len(p.Args) == 0 {
		return fault.New(fault.Invalid, "process.args must not be empty")
	}
	if p.Cwd != "" && !filepath.IsAbs(p.Cwd) {
		return fault.New(fault.Invalid, "process.cwd %q must be absolute", p.Cwd)
	}
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd}} {
		for _, word := range list {
			if strings.IndexByte(word, 0) >= 0 {
				return fault.New(fault.Invalid, "process has a word with a NUL byte: %q", word)
			}
		}
	}
	switch {
	case p.SelinuxLabel != "":
		return later("process.selinuxLabel")
	case p.ApparmorProfile != "":
		if unix.Access("/sys/module/apparmor", unix.F_OK) != nil {
			return fault.New(fault.Invalid, "process.apparmorProfile %q is set, and this kernel has no AppArmor", p.ApparmorProfile)
		}
		return later("process.apparmorProfile")
	}
	return nil
}

func checkLinux(s *specs.Spec) error {
	l := s.Linux
	switch {
	case l.IntelRdt != nil:
		return later("linux.intelRdt")
	case len(l.NetDevices) > 0:
		return later("linux.netDevices")
	case l.MountLabel != "":
		return later("linux.mountLabel")
	}
	return checkNamespaces(s)
}

func checkNamespaces(s *specs.Spec) error {
	seen := map[specs.LinuxNamespaceType]*specs.LinuxNamespace{}
	for i := range s.Linux.Namespaces {
		n := &s.Linux.Namespaces[i]
		if namespaceFlags[n.Type] == 0 {
			return fault.New(fault.Invalid, "the namespace type %q is not known", n.Type)
		}
		if seen[n.Type] != nil {
			return fault.New(fault.Invalid, "the namespace %s is named twice", n.Type)
		}
		if n.Path != "" && !filepath.IsAbs(n.Path) {
			return fault.New(fault.Invalid, "the path %q of the %s namespace must be absolute", n.Path, n.Type)
		}
		seen[n.Type] = n
	}
	if seen[specs.MountNamespace] == nil || seen[specs.MountNamespace].Path != "" {
		return later("a container without a new mount namespace")
	}
	l := s.Linux
	user := seen[specs.UserNamespace]
	maps := len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0
	switch {
	case user == nil && maps:
		return fault.New(fault.Invalid, "linux.uidMappings needs a user namespace")
	case user != nil && user.Path == "" && (len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0):
		return fault.New(fault.Invalid, "a new user namespace needs linux.uidMappings and linux.gidMappings")
	case len(l.TimeOffsets) > 0 && (seen[specs.TimeNamespace] == nil || seen[specs.TimeNamespace].Path != ""):
		return fault.New(fault.Invalid, "linux.timeOffsets needs a new time namespace")
	}
	return nil
}

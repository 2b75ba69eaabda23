package ocirun

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
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
	if err := checkWords(s); err != nil {
		return err
	}
	return checkLinux(s)
}

// words looks for a NUL byte in words that the kernel reads up to one: it would
// act on the first part. It keeps the first that it finds.
type words struct{ err error }

func (w *words) of(field string, list ...string) {
	for _, word := range list {
		if w.err == nil && strings.IndexByte(word, 0) >= 0 {
			w.err = fault.New(fault.Invalid, "%s has a NUL byte: %q", field, word)
		}
	}
}

// checkWords looks at all words but those of the process, those that are looked
// up in a list, and the limits, which package cgroup looks at.
func checkWords(s *specs.Spec) error {
	var w words
	w.of("root.path", s.Root.Path)
	w.of("hostname", s.Hostname)
	w.of("domainname", s.Domainname)
	for i := range s.Mounts {
		m := &s.Mounts[i]
		w.of("mounts.destination", m.Destination)
		w.of("mounts.type", m.Type)
		w.of("mounts.source", m.Source)
		w.of("mounts.options", m.Options...)
	}
	if h := s.Hooks; h != nil {
		for _, kind := range [...][]specs.Hook{h.Prestart, h.CreateRuntime, h.CreateContainer, h.StartContainer, h.Poststart, h.Poststop} {
			for i := range kind {
				w.of("hooks.path", kind[i].Path)
				w.of("hooks.args", kind[i].Args...)
				w.of("hooks.env", kind[i].Env...)
			}
		}
	}
	l := s.Linux
	w.of("linux.cgroupsPath", l.CgroupsPath)
	w.of("linux.mountLabel", l.MountLabel)
	w.of("linux.maskedPaths", l.MaskedPaths...)
	w.of("linux.readonlyPaths", l.ReadonlyPaths...)
	for i := range l.Namespaces {
		w.of("linux.namespaces.path", l.Namespaces[i].Path)
	}
	for i := range l.Devices {
		w.of("linux.devices.path", l.Devices[i].Path)
	}
	for key, text := range l.Sysctl {
		w.of("linux.sysctl", key, text)
	}
	if l.Seccomp != nil {
		w.of("linux.seccomp.listenerPath", l.Seccomp.ListenerPath)
	}
	return w.err
}

// checkProcess looks at what init and further processes have in common.
func checkProcess(p *specs.Process) error {
	if len(p.Args) == 0 {
		return fault.New(fault.Invalid, "process.args must not be empty")
	}
	if p.Cwd != "" && !filepath.IsAbs(p.Cwd) {
		return fault.New(fault.Invalid, "process.cwd %q must be absolute", p.Cwd)
	}
	var w words
	w.of("process.args", p.Args...)
	w.of("process.env", p.Env...)
	w.of("process.cwd", p.Cwd)
	w.of("process.apparmorProfile", p.ApparmorProfile)
	w.of("process.selinuxLabel", p.SelinuxLabel)
	if w.err != nil {
		return w.err
	}
	if err := checkUser(&p.User); err != nil {
		return err
	}
	return checkLabels(p)
}

// checkUser refuses the number that setresuid(2) takes for "as it is": the process
// would stay root.
func checkUser(u *specs.User) error {
	const none = ^uint32(0)
	what := ""
	switch {
	case u.UID == none:
		what = "uid"
	case u.GID == none:
		what = "gid"
	case slices.Contains(u.AdditionalGids, none):
		what = "additionalGids"
	default:
		return nil
	}
	return fault.New(fault.Invalid, "process.user.%s cannot be %d, which is no id", what, none)
}

func checkLinux(s *specs.Spec) error {
	l := s.Linux
	switch {
	case l.MountLabel != "" && !Selinux():
		return fault.New(fault.Invalid, "%s: linux.mountLabel %q", noSelinux, l.MountLabel)
	}
	if err := errors.Join(checkDevices(s), checkRdt(l.IntelRdt)); err != nil {
		return err
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
	if err := checkShared(s); err != nil {
		return err
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

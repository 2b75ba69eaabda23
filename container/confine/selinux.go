package confine

import (
	"strings"

	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"

	"github.com/tarehq/tare/fault"
)

// Labels are a container's contexts: of its processes, and of its files. They are
// empty for one that is not confined.
type Labels struct{ Process, Mount string }

// SELinux tells whether the kernel has SELinux with a policy. What containers are
// labelled with is the policy's word, in its contexts/lxc_contexts.
func SELinux() bool { return selinux.GetEnabled() }

// Allot gives labels as the options say, user, role, type and level, or disable.
// Without a level nobody else has the pair of categories, see Keep.
func Allot(options []string) (Labels, error) {
	for _, option := range options {
		// A label is an option of mounts, in quotes that the kernel knows no escape from.
		if strings.ContainsFunc(option, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return Labels{}, fault.New(fault.Invalid, "invalid --security-opt label: %q has a character that labels do not have", option)
		}
	}
	process, mount, err := label.InitLabels(options)
	if err != nil {
		return Labels{}, fault.New(fault.Invalid, "invalid --security-opt label: %w", err)
	}
	return Labels{process, mount}, nil
}

// Keep takes the categories of labels that an earlier daemon has given, and Free
// lets go of them.
func (l Labels) Keep() { selinux.ReserveLabel(l.Process) }

// Free lets go of the categories.
func (l Labels) Free() { selinux.ReleaseLabel(l.Process) }

// Level is the sensitivity and the categories of the processes, "" without labels.
func (l Labels) Level() string {
	parts := strings.SplitN(l.Process, ":", 4)
	if len(parts) < 4 {
		return ""
	}
	return parts[3]
}

// Like is the options of a container that shares namespaces with one that has the
// labels, whose processes it has to reach.
func (l Labels) Like() ([]string, error) { return selinux.DupSecOpt(l.Process) }

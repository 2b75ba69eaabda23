package confine

import (
	"errors"

	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"

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

// Like is the options of a container that shares namespaces with one that has the
// labels, whose processes it has to reach.
func (l Labels) Like() ([]string, error) { return selinux.DupSecOpt(l.Process) }

// Relabel gives files at the path, and all below it, to the container, or to all
// containers. A file system without labels is left as it is.
func (l Labels) Relabel(path string, shared bool) error {
	if l.Mount == "" {
		return nil
	}
	if err := label.Relabel(path, l.Mount, shared); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return fault.New(fault.Internal, "error setting label on mount source '%s': %w", path, err)
	}
	return nil
}

package cgroup

import (
	"errors"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"golang.org/x/sys/unix"
)

// Nowhere is the path of a container that has no groups of its own: its
// processes stay in those of whoever made it.
const Nowhere = "none:"

// None tells that there are no groups.
func (g *Group) None() bool { return len(g.Members) == 0 }

// none is what an operation says that needs groups.
func none(what string) error {
	return fault.New(fault.Unavailable, "cannot %s: cgroups not configured for container", what)
}

// Denied tells that groups could not be made for want of permission.
func Denied(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
}

// Limits tells whether r names something that needs a group. Rules for devices
// are not for those who make groups without being root.
func Limits(r *specs.LinuxResources) bool {
	return r != nil && len(settingsV1(r))+len(settingsV2(r)) > 0
}

// Beside is the path of a group for who may make groups beside their own, as in
// a subtree that was delegated: below it, processes of the group itself would be
// in the way of controllers.
func Beside(id string) string {
	l, err := cgroupfs.Host()
	if err != nil || !l.Unified() || !strings.HasPrefix(l.V2.Own, "/") || strings.HasPrefix(l.V2.Own, "/..") {
		return "/" + id
	}
	return filepath.Join(filepath.Dir(l.V2.Own), id)
}

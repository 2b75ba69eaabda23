// Package userns makes user namespaces (user_namespaces(7)) that no process is
// in: what their IDs are outside, and files by which others enter them or map
// the owners of mounts.
package userns

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/thread"
)

// Range is Count IDs of a namespace, from ID on, and what they are outside.
type Range struct{ ID, Host, Count uint32 }

// Map is what the IDs of a namespace are outside. Its ranges lie apart on both
// sides.
type Map struct{ UIDs, GIDs []Range }

// Root is who root of the namespace is outside. Every map has one: see Make.
func (m *Map) Root() (uid, gid uint32) {
	uid, _ = Outside(m.UIDs, 0)
	gid, _ = Outside(m.GIDs, 0)
	return uid, gid
}

// Outside is what an ID of the namespace is outside of it.
func Outside(ranges []Range, id uint32) (host uint32, ok bool) {
	for _, r := range ranges {
		if id >= r.ID && id-r.ID < r.Count {
			return r.Host + (id - r.ID), true
		}
	}
	return Nobody, false
}

// Inside is what an ID of the outside is in the namespace, as the kernel shows
// it: Nobody for those that it does not have.
func Inside(ranges []Range, host uint32) (id uint32, ok bool) {
	for _, r := range ranges {
		if host >= r.Host && host-r.Host < r.Count {
			return r.ID + (host - r.Host), true
		}
	}
	return Nobody, false
}

// Nobody is who owns what belongs to nobody of a namespace, the kernel's
// overflowuid and overflowgid.
const Nobody = 65534

// Size is how many IDs there are.
func Size(ranges []Range) (n uint32) {
	for _, r := range ranges {
		n += r.Count
	}
	return n
}

// Files are namespaces, each good as long as its file is open or a process is in
// it.
type Files struct {
	User *os.File // nil for none
	Net  *os.File // nil unless asked for; owned by User: who is root there rules it
}

// Close closes them.
func (f *Files) Close() {
	for _, one := range []*os.File{f.User, f.Net} {
		if one != nil {
			one.Close()
		}
	}
}

// Make makes a user namespace and, if it is asked for, a network namespace in
// it. A process of several threads, as all of Go's are, may not enter one, so a
// child is made in them, stopped at its first instruction (ptrace(2)), and ended
// when they are open here.
func Make(m *Map, net bool) (f Files, err error) {
	if _, ok := Outside(m.UIDs, 0); !ok {
		return f, errors.New("a map of users without root")
	}
	if _, ok := Outside(m.GIDs, 0); !ok {
		return f, errors.New("a map of groups without root")
	}
	attr := &os.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: mappings(m.UIDs), GidMappings: mappings(m.GIDs), GidMappingsEnableSetgroups: true,
		Ptrace: true, Pdeathsig: syscall.SIGKILL,
	}}
	if net {
		attr.Sys.Cloneflags |= unix.CLONE_NEWNET
	}
	thread.Own(func() bool { // who made it traces it
		var child *os.Process
		if child, err = os.StartProcess("/proc/self/exe", []string{"namespace"}, attr); err != nil {
			err = explain(err)
			return true
		}
		f, err = open(child.Pid, net)
		_ = child.Kill()
		_, _ = child.Wait()
		return true
	})
	return f, err
}

// MakeNetwork makes a network namespace in a new user namespace, which OfNetwork
// finds by it.
func MakeNetwork(m *Map) (*os.File, error) {
	f, err := Make(m, true)
	if err != nil {
		return nil, err
	}
	return f.Net, f.User.Close()
}

// Same tells whether two maps are the same.
func (m *Map) Same(other *Map) bool {
	if m == nil || other == nil {
		return m == other
	}
	return slices.Equal(m.UIDs, other.UIDs) && slices.Equal(m.GIDs, other.GIDs)
}

func explain(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("make a user namespace: the kernel lets nobody make another: raise user.max_user_namespaces: %w", err)
	}
	return fmt.Errorf("make a user namespace: %w", err)
}

func open(pid int, net bool) (f Files, err error) {
	if f.User, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", pid)); err != nil || !net {
		return f, err
	}
	if f.Net, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
		f.User.Close()
		return Files{}, err
	}
	return f, nil
}

func mappings(ranges []Range) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(ranges))
	for i, r := range ranges {
		out[i] = syscall.SysProcIDMap{ContainerID: int(r.ID), HostID: int(r.Host), Size: int(r.Count)}
	}
	return out
}

// OfNetwork opens the user namespace that owns a network namespace.
func OfNetwork(net *os.File) (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(net.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return nil, os.NewSyscallError("ioctl", err)
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "user namespace"), nil
}

// MapOwners has a detached mount show the owners on disk as those IDs of a user
// namespace (mount_setattr(2), MOUNT_ATTR_IDMAP), with flags as AT_RECURSIVE.
func MapOwners(tree, users int, flags uint) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users)}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|flags, &attr))
}

// ErrNoMap is how the kernel says that a file system cannot show other owners, or
// that a mount of it does so already.
func ErrNoMap(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) }

// Act has the calling thread make files as a user and a group whom the file
// system knows, and keep all else that it may. It is one that thread.Own lends,
// or has locked; back makes it root again.
func Act(uid, gid uint32) (back func(), err error) {
	back = func() {
		_ = unix.Setfsuid(0) // which gives the rights over files back
		_ = unix.Setfsgid(0)
	}
	if err := unix.Setfsgid(int(gid)); err != nil {
		return back, os.NewSyscallError("setfsgid", err)
	}
	if err := unix.Setfsuid(int(uid)); err != nil {
		return back, os.NewSyscallError("setfsuid", err)
	}
	// The change of the user took the rights over files (capabilities(7)).
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return back, os.NewSyscallError("capget", err)
	}
	for i := range data {
		data[i].Effective = data[i].Permitted
	}
	return back, os.NewSyscallError("capset", unix.Capset(&head, &data[0]))
}

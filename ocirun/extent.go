package ocirun

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// How far a restored container reaches: the images may have mounts beyond those of
// the configuration, and name other control groups for each thread.

// mounted checks the mounts of the first process, which has not run yet.
func (r *restoration) mounted(pid int) error {
	mounts, err := readMounts(pid)
	if err != nil {
		return err
	}
	root, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.New(fault.Internal, "open the restored container's root: %w", err)
	}
	defer unix.Close(root)
	if err := r.covered(root, mounts); err != nil {
		return err
	}
	return r.contained(root, mounts)
}

// contained checks that the restored processes, of which none has run, have no mounts
// but those of the configuration. Who may mount could have made others.
func (r *restoration) contained(root int, mounts []mountLine) error {
	if c := r.spec.Process.Capabilities; c != nil && mayMount(r.spec.Process) {
		return nil
	}
	sources, err := r.sourcesAt(root)
	if err != nil {
		return err
	}
	host, err := readMounts(0)
	if err != nil {
		return err
	}
	theirs := map[string]bool{} // the host's file systems
	for _, m := range host {
		theirs[m.device] = true
	}
	for _, m := range mounts {
		if m.point == "/" || r.fresh(root, m, theirs) || sameFile(root, m.point, sources[m.point]) {
			continue
		}
		return fault.New(fault.Invalid, "the checkpoint is one of a container with a mount on %s that the configuration does not have", m.point)
	}
	return nil
}

// fresh tells whether a mount is the container's own and shows nothing of the host,
// or what of the kernel's the configuration mounts there.
func (r *restoration) fresh(root int, m mountLine, theirs map[string]bool) bool {
	switch m.fstype {
	case "tmpfs", "devpts": // without anything in it, unless it is one of the host's
		return !theirs[m.device]
	case "mqueue": // of the container's namespace
		return true
	}
	for i := range r.spec.Mounts {
		want := &r.spec.Mounts[i]
		if want.Type != m.fstype || bindMount(want) {
			continue
		}
		rest, ok := pathBelow(m.point, resolveIn(root, want.Destination))
		switch {
		case !ok:
		case m.fstype == "proc" || m.fstype == "sysfs": // all of it, or a part in its own place
			if m.root == path.Join("/", rest) {
				return true
			}
		default: // a file system that needs more than a name was let in at its creation
			if rest == "" && !strings.HasPrefix(m.fstype, "cgroup") {
				return true
			}
		}
	}
	return false
}

// sourcesAt are the files and directories of the host that may be mounted in each
// place of a root.
func (r *restoration) sourcesAt(root int) (map[string][]string, error) {
	list, err := r.outerSources()
	if err != nil {
		return nil, err
	}
	at := map[string][]string{}
	for _, s := range list {
		place := resolveIn(root, s.GetKey())
		at[place] = append(at[place], s.GetVal())
	}
	for _, name := range r.spec.Linux.MaskedPaths {
		place := resolveIn(root, name)
		at[place] = append(at[place], os.DevNull)
	}
	for i := range r.spec.Mounts {
		m := &r.spec.Mounts[i]
		if !strings.HasPrefix(m.Type, "cgroup") || !r.group.Unified {
			continue
		}
		place := resolveIn(root, m.Destination)
		for _, member := range r.group.Members {
			at[place] = append(at[place], member.Dir)
			if !r.ownGroups() {
				at[place] = append(at[place], member.Mount)
			}
		}
	}
	return at, nil
}

// sameFile tells whether what is at a path below a root is one of the host's files. A
// path that leads nowhere is hidden by another mount.
func sameFile(root int, name string, files []string) bool {
	var there, here unix.Stat_t
	fd, err := openBelow(root, below(name), unix.O_PATH)
	if err != nil {
		return err == unix.ENOENT
	}
	defer unix.Close(fd)
	if unix.Fstat(fd, &there) != nil {
		return false
	}
	for _, file := range files {
		if unix.Stat(file, &here) == nil && here.Dev == there.Dev && here.Ino == there.Ino {
			return true
		}
	}
	return false
}

// grouped checks that all threads of the restored processes, of which none has run,
// are in the container's control groups, or in groups below those.
func (r *restoration) grouped(pid int) error {
	threads, err := threadsBelow(pid, nil)
	if err != nil {
		return fault.New(fault.Internal, "list the restored processes: %w", err)
	}
	for _, m := range r.group.Members {
		if !r.group.Unified && (m.Controllers == nil || strings.HasPrefix(m.Controllers[0], "name=")) {
			continue // limits nothing
		}
		file := "tasks"
		if r.group.Unified {
			file = "cgroup.threads"
		}
		in := map[string]bool{}
		err := filepath.WalkDir(m.Dir, func(name string, d os.DirEntry, err error) error {
			if err != nil || d.Name() != file {
				return err
			}
			text, err := os.ReadFile(name)
			for _, id := range strings.Fields(string(text)) {
				in[id] = true
			}
			return err
		})
		if err != nil {
			return fault.New(fault.Internal, "list the container's control group: %w", err)
		}
		for _, id := range threads {
			if !in[id] {
				return fault.New(fault.Invalid, "the checkpoint has a process outside of the container's control group (%s)", strings.Join(m.Controllers, ","))
			}
		}
	}
	return nil
}

// threadsBelow lists the threads of a process and of all that come from it.
func threadsBelow(pid int, list []string) ([]string, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		if state, err := os.ReadFile(dir + "/" + t.Name() + "/stat"); err != nil || !strings.Contains(string(state), ") Z ") {
			list = append(list, t.Name())
		}
		text, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err != nil {
			return nil, err
		}
		for _, child := range strings.Fields(string(text)) {
			n, err := strconv.Atoi(child)
			if err != nil {
				return nil, err
			}
			if list, err = threadsBelow(n, list); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

package ocirun

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
)

// What comes from outside has a name in a checkpoint, and whoever restores that
// says what the name stands for. A mount is called what the configuration calls
// its destination, and what is mounted below it what follows from that: so the
// images never say which file of the host is mounted, the configuration does.

// mountLine is a line of mountinfo, proc_pid_mountinfo(5).
type mountLine struct {
	id                           int
	device, root, point, options string
	fstype                       string
}

// readMounts lists the mounts of a process in their order, with paths as the
// process sees them; 0 is the calling thread.
func readMounts(pid int) ([]mountLine, error) {
	name := "/proc/thread-self/mountinfo"
	if pid > 0 {
		name = "/proc/" + strconv.Itoa(pid) + "/mountinfo"
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.New(fault.Internal, "read the mounts: %w", err)
	}
	var list []mountLine
	for line := range strings.Lines(string(text)) {
		head, tail, _ := strings.Cut(line, " - ")
		f := strings.Fields(head)
		if len(f) < 6 {
			continue
		}
		fstype, _, _ := strings.Cut(tail, " ")
		id, _ := strconv.Atoi(f[0])
		list = append(list, mountLine{id, f[2], procfs.Unescape(f[3]), procfs.Unescape(f[4]), f[5], fstype})
	}
	return list, nil
}

// checkNames refuses names that CRIU, which keeps "mnt[NAME]:PLACE", would read as
// shorter ones with a place of their own: they come from images, as volumes, and from
// the container, which renames directories that mounts lie in.
func checkNames(list []*rpc.ExtMountMap) ([]*rpc.ExtMountMap, error) {
	for _, m := range list {
		if name := m.GetKey(); name == "" || strings.Contains(name, "]:") {
			return nil, fault.New(fault.Invalid, "invalid external mount destination %q: CRIU cannot tell it from what is mounted there", name)
		}
	}
	return list, nil
}

// pathBelow tells whether a path is dir or below it, and what follows.
func pathBelow(name, dir string) (rest string, ok bool) {
	if dir == "/" {
		dir = ""
	}
	rest, ok = strings.CutPrefix(name, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// outerMounts names the mounts that are not the container's own.
func (c *Container) outerMounts(mounts []mountLine) ([]*rpc.ExtMountMap, error) {
	spec := c.known()
	root, err := unix.Open("/proc/"+strconv.Itoa(c.pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Internal, "open the container's root: %w", err)
	}
	defer unix.Close(root)
	binds := map[string]string{} // where they are, and their names
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		place := resolveIn(root, m.Destination)
		if bindMount(m) {
			binds[place] = path.Clean("/" + m.Destination)
		} else {
			delete(binds, place)
		}
	}
	masked := map[string]bool{}
	for _, name := range spec.Linux.MaskedPaths {
		masked[resolveIn(root, name)] = true
	}
	ownGroups := c.ownGroups()
	var list []*rpc.ExtMountMap
	add := func(point, name string) {
		list = append(list, &rpc.ExtMountMap{Key: &point, Val: &name})
	}
	rootDevice := ""
	for _, m := range mounts {
		if m.point == "/" {
			rootDevice = m.device
			continue
		}
		bind := governing(binds, m.point)
		switch {
		case masked[m.point] && m.fstype == "devtmpfs":
			add(m.point, "/dev/null")
		case bind != "":
			rest, _ := pathBelow(m.point, bind)
			add(m.point, path.Join(binds[bind], rest))
		case m.fstype == "devtmpfs" && m.root != "/": // a device of the host
			add(m.point, m.point)
		case m.fstype == "cgroup" && !ownGroups:
			add(m.point, m.point)
		case m.device != rootDevice && !ownKind(m.fstype): // came with the root
			add(m.point, m.point)
		}
	}
	return checkNames(list)
}

// ownKind tells whether mounts of a file system are made for a container.
func ownKind(fstype string) bool {
	switch fstype {
	case "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2":
		return true
	}
	return false
}

// governing is the innermost of the binds that a place is at or below.
func governing(binds map[string]string, point string) string {
	best := ""
	for place := range binds {
		if _, ok := pathBelow(point, place); ok && len(place) > len(best) {
			best = place
		}
	}
	return best
}

func bindMount(m *specs.Mount) bool {
	return m.Type == "bind" || contains(m.Options, "bind") || contains(m.Options, "rbind")
}

// resolveIn follows the links of a path below a root, and gives the path
// without them; where it does not exist, the path as it is.
func resolveIn(root int, name string) string {
	fd, err := openBelow(root, below(name), unix.O_PATH)
	if err != nil {
		return path.Clean("/" + name)
	}
	defer unix.Close(fd)
	top, err := os.Readlink("/proc/thread-self/fd/" + strconv.Itoa(root))
	if err != nil {
		return path.Clean("/" + name)
	}
	found, err := os.Readlink("/proc/thread-self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return path.Clean("/" + name)
	}
	if rest, ok := pathBelow(found, top); ok {
		return path.Clean("/" + rest)
	}
	return path.Clean("/" + name)
}

// outerFiles tells what descriptors 0, 1 and 2 of init lead to. A file of the
// host's, to which no mount of the container leads, is named by its mount and
// inode as CRIU wants it.
func (c *Container) outerFiles(o *CheckpointOptions, mounts []mountLine) ([]string, error) {
	inside := map[int]bool{}
	for _, m := range mounts {
		inside[m.id] = true
	}
	list := make([]string, 3)
	for i := range list {
		if i < len(o.Descriptors) {
			list[i] = o.Descriptors[i]
		}
		if strings.HasPrefix(list[i], "pipe:") {
			continue
		}
		dir := "/proc/" + strconv.Itoa(c.pid)
		link, err := os.Readlink(fmt.Sprintf("%s/fd/%d", dir, i))
		if err != nil { // closed
			continue
		}
		list[i] = link
		if !strings.HasPrefix(link, "/") {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("%s/fdinfo/%d", dir, i))
		if err != nil {
			continue
		}
		id := mountOfFile(info)
		var st unix.Stat_t
		if id < 0 || inside[id] || unix.Stat(fmt.Sprintf("%s/fd/%d", dir, i), &st) != nil {
			continue
		}
		list[i] = fmt.Sprintf("file[%x:%x]", id, st.Ino)
	}
	return list, nil
}

// mountOfFile reads mnt_id of a file's fdinfo.
func mountOfFile(info []byte) int {
	for line := range bytes.Lines(info) {
		if v, ok := strings.CutPrefix(string(line), "mnt_id:"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
				return n
			}
		}
	}
	return -1
}

// outerSources says where the mounts that outerMounts names come from on this
// host, by the configuration.
func (c *Container) outerSources() ([]*rpc.ExtMountMap, error) {
	spec := c.known()
	host, err := readMounts(0)
	if err != nil {
		return nil, err
	}
	var list []*rpc.ExtMountMap
	seen := map[string]bool{}
	add := func(name, source string) {
		if !seen[name] {
			seen[name] = true
			list = append(list, &rpc.ExtMountMap{Key: &name, Val: &source})
		}
	}
	tree := func(name, source string, whole bool) {
		real, err := filepath.EvalSymlinks(source)
		if err != nil {
			real = source
		}
		if name != "/" {
			add(name, real)
		}
		if !whole {
			return
		}
		for _, m := range host {
			if rest, ok := pathBelow(m.point, real); ok && rest != "" {
				add(path.Join(name, rest), m.point)
			}
		}
	}
	if len(spec.Linux.MaskedPaths) > 0 {
		add("/dev/null", "/dev/null")
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		switch {
		case bindMount(m):
			source := m.Source
			if !filepath.IsAbs(source) {
				source = filepath.Join(c.bundle, source)
			}
			o, err := parseOptions(m)
			if err != nil {
				return nil, err
			}
			tree(path.Clean("/"+m.Destination), source, o.recursive)
		case m.Type == "cgroup" && !c.group.Unified:
			for _, member := range c.group.Members {
				if member.Controllers == nil {
					continue
				}
				add(path.Join("/", m.Destination, member.Name()), member.Dir)
			}
		}
	}
	for _, d := range append(spec.Linux.Devices, defaultNodes...) {
		add(path.Clean("/"+d.Path), path.Clean("/"+d.Path))
	}
	tree("/", c.rootfs(), true)
	return checkNames(list)
}

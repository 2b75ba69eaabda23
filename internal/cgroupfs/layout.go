// Package cgroupfs knows where the control group file systems of the machine
// are, cgroups(7), whether it has version 1 (also hybrid) or version 2 alone,
// reads what the kernel counts for a group, and removes groups. It changes nothing
// else.
package cgroupfs

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/procfs"
)

// Hierarchy is one mounted control group file system.
type Hierarchy struct {
	Controllers []string // of v1; nil for v2
	Mount       string
	Own         string // the group of this process, relative to the hierarchy's root
}

// Has tells whether a controller of v1 belongs to the hierarchy.
func (h *Hierarchy) Has(controller string) bool { return slices.Contains(h.Controllers, controller) }

// Name is what the hierarchy of version 1 is called where all are side by side.
func (h *Hierarchy) Name() string {
	if len(h.Controllers) == 1 {
		if name, ok := strings.CutPrefix(h.Controllers[0], "name="); ok {
			return name
		}
	}
	return filepath.Base(h.Mount)
}

// Place is the directory of a group. An absolute path starts at the root of the
// hierarchy, a relative one at this process's own group.
func (h *Hierarchy) Place(path string) string {
	clean := filepath.Clean("/" + path)
	if filepath.IsAbs(path) {
		return h.Mount + clean
	}
	return filepath.Join(h.Mount, h.Own, clean)
}

// Places are the directories of a group in all hierarchies.
func (l *Layout) Places(path string) []string {
	var all []string
	for i := range l.V1 {
		all = append(all, l.V1[i].Place(path))
	}
	if l.V2 != nil {
		all = append(all, l.V2.Place(path))
	}
	return all
}

// Layout is what the machine has: v1 hierarchies with controllers, and then that
// of the name systemd, where it is mounted; or v2 alone. V2 beside V1, a hybrid
// machine, is where processes are grouped and nothing is limited.
type Layout struct {
	V1 []Hierarchy
	V2 *Hierarchy
}

// The hierarchy that systemd knows its units by.
const (
	namedSystemd = "name=systemd"
	unifiedMount = "/sys/fs/cgroup"
)

// Unified tells that the machine has v2 alone.
func (l *Layout) Unified() bool { return len(l.V1) == 0 && l.V2 != nil }

// Host reads the layout once.
var Host = sync.OnceValues(func() (*Layout, error) {
	mounts, err := procfs.Read("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find the control groups: %w", err)
	}
	own, err := procfs.Read("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find the control groups: %w", err)
	}
	return Parse(string(mounts), string(own)), nil
})

// Unified tells that this machine has v2 alone.
func Unified() (bool, error) {
	l, err := Host()
	if err != nil {
		return false, err
	}
	return l.Unified(), nil
}

// CountsSwap looks whether the kernel can limit swap: for v1 it has to be told so
// when it boots (swapaccount=1). The root group of v2 has no limits to look at.
func (l *Layout) CountsSwap() bool {
	if l.Unified() {
		return l.V2.Own == "/" || l.V2.Own == "" || unix.Access(l.V2.Place("")+"/memory.swap.max", unix.F_OK) == nil
	}
	for i := range l.V1 {
		if h := &l.V1[i]; slices.Contains(h.Controllers, "memory") {
			return unix.Access(h.Mount+"/memory.memsw.limit_in_bytes", unix.F_OK) == nil
		}
	}
	return false
}

// path reads cgroup of proc(5): the path in the hierarchy with the list of
// controllers, "" for v2.
func path(text, controllers string) (path string, found bool) {
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if list, path, ok := strings.Cut(rest, ":"); ok && list == controllers {
			return path, true
		}
	}
	return "", false
}

// Parse reads mountinfo and cgroup of proc(5). Where v2 is mounted at its usual
// place the machine has it alone, as for other runtimes, whatever of v1 is mounted
// somewhere for an old program's sake.
func Parse(mounts, own string) *Layout {
	ours := func(controllers string) string {
		p, _ := path(own, controllers)
		return p
	}
	l := &Layout{}
	var named *Hierarchy
	for line := range strings.Lines(mounts) {
		i := strings.Index(line, " - cgroup")
		if i < 0 {
			continue
		}
		f, tail := strings.Fields(line[:i]), strings.Fields(line[i+3:])
		if len(f) < 5 || len(tail) < 3 {
			continue
		}
		mount := procfs.Unescape(f[4])
		if tail[0] == "cgroup2" {
			if f[3] == "/" && (l.V2 == nil || mount == unifiedMount) {
				l.V2 = &Hierarchy{Mount: mount, Own: ours("")}
			}
			continue
		}
		h := Hierarchy{Mount: mount}
		for _, o := range strings.Split(tail[2], ",") {
			if isController(o) {
				h.Controllers = append(h.Controllers, o)
			} else if o == namedSystemd && named == nil {
				named = &Hierarchy{[]string{o}, mount, ours(o)}
			}
		}
		key := strings.Join(h.Controllers, ",")
		if key == "" || slices.ContainsFunc(l.V1, func(other Hierarchy) bool { return slices.Equal(other.Controllers, h.Controllers) }) {
			continue
		}
		h.Own = ours(key)
		if l.V1 == nil {
			l.V1 = make([]Hierarchy, 0, 16)
		}
		l.V1 = append(l.V1, h)
	}
	switch {
	case l.V2 != nil && l.V2.Mount == unifiedMount:
		l.V1 = nil
	case len(l.V1) > 0 && named != nil:
		l.V1 = append(l.V1, *named)
	}
	return l
}

func isController(option string) bool {
	switch option {
	case "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids",
		"net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc":
		return true
	}
	return false
}

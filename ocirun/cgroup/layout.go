package cgroup

import (
	"os"
	"strings"
	"sync"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
	"golang.org/x/sys/unix"
)

// hierarchy is one mounted control group file system.
type hierarchy struct {
	controllers []string // of v1; nil for v2
	mount       string
	own         string // the group of this process, relative to the hierarchy's root
}

func (h *hierarchy) has(controller string) bool {
	for _, c := range h.controllers {
		if c == controller {
			return true
		}
	}
	return false
}

// layout is what the machine has: v1 hierarchies with controllers, or v2 alone.
type layout struct {
	v1 []hierarchy
	v2 *hierarchy
}

// host reads the layout once.
var host = sync.OnceValues(func() (*layout, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fault.New(fault.Internal, "find the control groups: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fault.New(fault.Internal, "find the control groups: %w", err)
	}
	systemd := unix.Access("/run/systemd/system", unix.F_OK) == nil
	return parseLayout(string(mounts), string(own), systemd), nil
})

// parseLayout reads mountinfo and cgroup of proc(5). The named systemd
// hierarchy counts only where systemd runs.
func parseLayout(mounts, own string, systemd bool) *layout {
	groups := map[string]string{}
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 {
			groups[f[1]] = f[2]
		}
	}
	l := &layout{}
	seen := map[string]bool{}
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
			if l.v2 == nil {
				l.v2 = &hierarchy{mount: mount, own: groups[""]}
			}
			continue
		}
		h := hierarchy{mount: mount}
		for _, o := range strings.Split(tail[2], ",") {
			if isController(o) || o == "name=systemd" && systemd {
				h.controllers = append(h.controllers, o)
			}
		}
		key := strings.Join(h.controllers, ",")
		if key == "" || seen[key] {
			continue
		}
		seen[key] = true
		h.own = groups[key]
		l.v1 = append(l.v1, h)
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

// Unified tells that the machine has v2 alone.
func Unified() (bool, error) {
	l, err := host()
	if err != nil {
		return false, err
	}
	return len(l.v1) == 0 && l.v2 != nil, nil
}

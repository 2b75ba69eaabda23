package cgroupfs

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Group is the set of directories of one group, by controller; on v2 the one
// with the controller "".
type Group map[string]string

// Group finds the groups of a process by its /proc/PID/cgroup, proc(5). Of each
// path only what ends in the element last, or in a scope of systemd's that is
// named after it, counts, if it has that: a process may have gone further down
// by itself.
func (l *Layout) Group(text, last string) Group {
	g := Group{}
	dir := func(h *Hierarchy, path string) string {
		for _, end := range [...]string{"/" + last, "-" + last + ".scope"} {
			if before, _, found := strings.Cut(path+"/", end+"/"); found {
				return h.Place(before + end)
			}
		}
		return h.Place(path)
	}
	if l.Unified() {
		own, _ := path(text, "")
		g[""] = dir(l.V2, own)
		return g
	}
	for i := range l.V1 {
		h := &l.V1[i]
		for _, c := range h.Controllers {
			if path, ok := path(text, strings.Join(h.Controllers, ",")); ok {
				g[c] = dir(h, path)
			}
		}
	}
	return g
}

// Dir is the directory with a controller's files, "" if there is none.
func (g Group) Dir(controller string) string {
	if dir, unified := g[""]; unified {
		return dir
	}
	return g[controller]
}

// Stats reads what the kernel counts; a controller that is missing counts
// nothing.
func (g Group) Stats() *Stats {
	if dir, unified := g[""]; unified {
		return ReadV2(dir)
	}
	return ReadV1(g.Dir)
}

// Members are the controllers of v1 by whose groups a container's processes are
// known, the first one that is there.
var Members = [...]string{"freezer", "pids", "devices", "memory"}

// Procs lists the processes in the group and in those below.
func (g Group) Procs() ([]int, error) {
	for _, c := range Members {
		if dir := g.Dir(c); dir != "" {
			return Procs(dir)
		}
	}
	return nil, errors.New("no control group is there to know the processes by")
}

// Procs lists the processes in the group of a directory and in those below.
func Procs(dir string) ([]int, error) {
	all, err := ProcsOf(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		below, e := Procs(dir + "/" + e.Name())
		if e != nil && !errors.Is(e, unix.ENOENT) {
			return all, e
		}
		all = append(all, below...)
	}
	return all, err
}

// ProcsOf lists the processes in the group of a directory itself.
func ProcsOf(dir string) ([]int, error) {
	b, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(string(b)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

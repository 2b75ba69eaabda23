package cgroup

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/internal/cgroupfs"
)

// MemoryLimited tells whether the group, or one above it, has a limit of memory,
// at which the kernel kills processes in it and all who share their memory.
func (g *Group) MemoryLimited() bool {
	m, file := g.memory()
	return m != nil && limited(m.Mount, m.Dir, file)
}

// MayStarve tells the same of a group that is new, for the time until its first
// process executes something: its own limit counts where the little that this
// takes may be too much.
func (g *Group) MayStarve(r *specs.LinuxResources) bool {
	const enough = 64 << 20
	if r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 && *r.Memory.Limit < enough || r != nil && r.Unified["memory.max"] != "" {
		return true
	}
	m, file := g.memory()
	return m != nil && limited(m.Mount, filepath.Dir(m.Dir), file)
}

// memory is the group with the controller, and the file of its limit.
func (g *Group) memory() (*Member, string) {
	if g.None() {
		return nil, ""
	}
	if g.Unified {
		return &g.Members[0], "memory.max"
	}
	if i := slices.IndexFunc(g.Members, func(m Member) bool { return contains(m.Controllers, "memory") }); i >= 0 {
		return &g.Members[i], "memory.limit_in_bytes"
	}
	return nil, ""
}

// limited looks for a limit in a group and in those above it. A group that is
// not there yet, or without the controller, has none.
func limited(mount, dir, file string) bool {
	const none = 1 << 62 // what the kernel shows without a limit is above it
	for ; strings.HasPrefix(dir, mount+"/"); dir = filepath.Dir(dir) {
		if l := cgroupfs.Lines(dir, file); len(l) == 1 {
			if n, err := strconv.ParseUint(l[0][0], 10, 64); err == nil && n < none {
				return true
			}
		}
	}
	return false
}

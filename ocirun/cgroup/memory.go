package cgroup

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/internal/cgroupfs"
)

// enough is more memory than a group comes to need in the moment in which a
// process begins there.
const enough = 64 << 20

// MayStarve tells whether the group, or one above it, is so near to its limit of
// memory that the kernel may soon kill processes in it, and all who share their
// memory.
func (g *Group) MayStarve() bool {
	m := g.memory()
	return m != nil && g.starves(m.Mount, m.Dir)
}

// BeginsStarving tells the same of a group that is new, whose limits are r.
func (g *Group) BeginsStarving(r *specs.LinuxResources) bool {
	if r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 && *r.Memory.Limit < enough || r != nil && r.Unified["memory.max"] != "" {
		return true
	}
	m := g.memory()
	return m != nil && g.starves(m.Mount, filepath.Dir(m.Dir))
}

// memory is the group with the controller, nil without.
func (g *Group) memory() *Member {
	if g.None() {
		return nil
	}
	if g.Unified {
		return &g.Members[0]
	}
	if i := slices.IndexFunc(g.Members, func(m Member) bool { return contains(m.Controllers, "memory") }); i >= 0 {
		return &g.Members[i]
	}
	return nil
}

// starves looks at a group and those above it. One that is not there yet, or
// without the controller, has no limit.
func (g *Group) starves(mount, dir string) bool {
	limit, usage := "memory.limit_in_bytes", "memory.usage_in_bytes"
	if g.Unified {
		limit, usage = "memory.max", "memory.current"
	}
	const none = 1 << 62 // what version 1 shows without a limit is above it
	for ; strings.HasPrefix(dir, mount+"/"); dir = filepath.Dir(dir) {
		if l := cgroupfs.Lines(dir, limit); len(l) == 1 {
			if n, err := strconv.ParseUint(l[0][0], 10, 64); err == nil && n < none && n < cgroupfs.Number(dir, usage)+enough {
				return true
			}
		}
	}
	return false
}

package cgroup

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/cgroupfs"
)

// Stats reads what the kernel counts for the group.
func (g *Group) Stats() (*cgroupfs.Stats, error) {
	if g.None() {
		return nil, none("count")
	}
	if _, err := os.Stat(g.killDir()); errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	if g.Unified {
		return cgroupfs.ReadV2(g.Members[0].Dir), nil
	}
	return cgroupfs.ReadV1(g.dir), nil
}

// OOMs counts how often the group was short of memory: kills, and one more
// while it waits with the killer switched off.
func (g *Group) OOMs() uint64 {
	if g.None() {
		return 0
	}
	if g.Unified {
		return cgroupfs.Table(g.Members[0].Dir, "memory.events")["oom_kill"]
	}
	t := cgroupfs.Table(g.dir("memory"), "memory.oom_control")
	return t["oom_kill"] + t["under_oom"]
}

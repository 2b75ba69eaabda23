package cgroup

import (
	"errors"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
)

// Update changes the limits that r names and leaves the others, and the rules
// for devices, as they are. When one of them is refused all are as they were.
func (g *Group) Update(r *specs.LinuxResources) error {
	if g.None() {
		return fault.New(fault.Unavailable, "cannot set limits: container could not join or create cgroup")
	}
	u := *r
	u.Devices = nil
	if m := u.Memory; m != nil {
		if err := g.checkUsage(m); err != nil {
			return err
		}
		if m.Limit != nil && *m.Limit < 0 && m.Swap == nil { // memory+swap may not stay below
			all := *m
			all.Swap = m.Limit
			u.Memory = &all
		}
	}
	if c := u.CPU; c != nil {
		cpu := *c
		if g.Unified && (c.Quota == nil || *c.Quota == 0) && c.Period != nil {
			if cpu.Quota = g.quotaV2(); cpu.Quota == nil {
				none := int64(-1)
				cpu.Quota = &none
			}
		}
		u.CPU = &cpu
	}
	before := g.inForce(&u)
	err := g.limit(&u)
	if err == nil && g.unit != nil { // whose values are coarser, so ours come again
		if err = g.unit.set(g.properties(g.withPeriod(&u))); err == nil {
			err = g.limit(&u)
		}
	}
	if err != nil {
		return errors.Join(err, g.restore(before))
	}
	if c := u.CPU; c != nil && c.Burst != nil && *c.Burst == 0 && !g.Unified { // at birth it is zero
		return g.writeAll([]setting{{controller: "cpu", file: "cpu.cfs_burst_us", value: "0"}})
	}
	return nil
}

// withPeriod adds to a quota the period that is in force: systemd wants a share.
func (g *Group) withPeriod(r *specs.LinuxResources) *specs.LinuxResources {
	if r.CPU == nil || r.CPU.Quota == nil || r.CPU.Period != nil && *r.CPU.Period != 0 {
		return r
	}
	n := cgroupfs.Number(g.dir("cpu"), "cpu.cfs_period_us")
	if g.Unified {
		if l := cgroupfs.Lines(g.Members[0].Dir, "cpu.max"); len(l) == 1 && len(l[0]) == 2 {
			n, _ = strconv.ParseUint(l[0][1], 10, 64)
		}
	}
	with, cpu := *r, *r.CPU
	cpu.Period = &n
	with.CPU = &cpu
	return &with
}

// quotaV2 is the quota that is in force, nil for none.
func (g *Group) quotaV2() *int64 {
	b, _ := readFile(g.Members[0].Dir + "/cpu.max")
	word, _, _ := strings.Cut(string(b), " ")
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// checkUsage refuses a limit below what is in use, when that is asked for: the
// kernel would reclaim and kill instead.
func (g *Group) checkUsage(m *specs.LinuxMemory) error {
	if m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate || m.Limit == nil || *m.Limit <= 0 {
		return nil
	}
	file := g.dir("memory") + "/memory.usage_in_bytes"
	if g.Unified {
		file = g.Members[0].Dir + "/memory.current"
	}
	b, err := readFile(file)
	if err != nil {
		return err
	}
	if used, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); used > *m.Limit {
		return fault.New(fault.Conflict, "rejecting memory limit %d: %d bytes are in use", *m.Limit, used)
	}
	return nil
}

// inForce reads what the settings of r are about to replace. A file that cannot
// be read has nothing to restore.
func (g *Group) inForce(r *specs.LinuxResources) (before []setting) {
	for _, s := range g.settings(r) {
		dir := g.dir(s.controller)
		if g.Unified {
			dir = g.Members[0].Dir
		}
		if value, ok := valueOf(s, cgroupfs.Lines(dir, s.file)); ok {
			before = append(before, setting{s.controller, s.file, value})
		}
	}
	return before
}

// valueOf finds in a file's lines what is to be written to take a setting back.
func valueOf(s setting, have [][]string) (string, bool) {
	key, rest, _ := strings.Cut(s.value, " ")
	switch {
	case strings.HasSuffix(s.file, "_device"), strings.HasPrefix(s.file, "io."), s.file == "net_prio.ifpriomap", s.file == "rdma.max": // a line for each device
		for _, line := range have {
			if line[0] == key {
				return strings.Join(line, " "), true
			}
		}
		if limit, _, ok := strings.Cut(rest, "="); ok {
			return key + " " + limit + "=max", true
		}
		return key + " 0", true
	case len(have) == 0:
		return "", false
	case s.file == "memory.oom_control": // oom_kill_disable 0
		return have[0][len(have[0])-1], true
	}
	return strings.Join(have[0], " "), true
}

// restore writes values that were in force.
func (g *Group) restore(before []setting) (err error) {
	if !g.Unified {
		return g.writeAll(before)
	}
	for _, s := range before {
		err = errors.Join(err, write(g.Members[0].Dir, s.file, s.value))
	}
	return err
}

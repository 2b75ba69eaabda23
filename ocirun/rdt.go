package ocirun

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
	"golang.org/x/sys/unix"
)

// Shares of caches and of memory bandwidth, linux.intelRdt, are groups of the
// kernel's resctrl file system, of AMD's processors as well:
//
//	<resctrl>/<closID, or the container's ID>/{schemata,tasks}
//	<resctrl>/…/mon_groups/<ID>/tasks
//
// A group that is named by closID stays; one of the container's own, and what
// is measured for it, goes with it.

// resctrl finds where the file system is mounted.
var resctrl = func() (string, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", fault.New(fault.Internal, "find the resctrl file system: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		head, tail, _ := strings.Cut(line, " - ")
		if f := strings.Fields(head); len(f) > 4 && strings.HasPrefix(tail, "resctrl ") {
			return procfs.Unescape(f[4]), nil
		}
	}
	return "", fault.New(fault.Unavailable, "intelRdt is specified in config, but Intel RDT is not enabled: no resctrl file system is mounted here, which needs a processor and a kernel with it")
}

// checkRdt refuses names that lead elsewhere and machines that have no such
// thing.
func checkRdt(r *specs.LinuxIntelRdt) error {
	if r == nil {
		return nil
	}
	if id := r.ClosID; id == "." || id == ".." || len(id) > 1 && strings.Contains(id, "/") || strings.ContainsAny(id, "\n\x00") {
		return fault.New(fault.Invalid, "invalid intelRdt.ClosID %q: it is one name, or / for the default group", id)
	}
	for _, line := range schemata(r) {
		if strings.ContainsAny(line, "\n\x00") {
			return fault.New(fault.Invalid, "linux.intelRdt has %q, which is no line of a schemata file", line)
		}
	}
	if m := r.MemBwSchema; m != "" && !strings.HasPrefix(m, "MB:") {
		return fault.New(fault.Invalid, "linux.intelRdt.memBwSchema %q does not begin with MB:", m)
	}
	_, err := resctrl()
	return err
}

// schemata are the lines to be written, in the specification's order.
func schemata(r *specs.LinuxIntelRdt) (lines []string) {
	for _, line := range append([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata...) {
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// rdtGroup is where a container's group lies.
func (c *Container) rdtGroup(r *specs.LinuxIntelRdt) (string, error) {
	top, err := resctrl()
	if err != nil {
		return "", err
	}
	if r.ClosID == "" {
		return filepath.Join(top, c.id), nil
	}
	return filepath.Join(top, r.ClosID), nil
}

// makeRdt makes the group of a container, or checks the one that is there.
func (c *Container) makeRdt() error {
	r := c.spec.Linux.IntelRdt
	if r == nil {
		return nil
	}
	dir, err := c.rdtGroup(r)
	if err != nil {
		return err
	}
	lines := schemata(r)
	made := r.ClosID != "/"
	if made {
		switch err := os.Mkdir(dir, 0o755); {
		case err == nil && r.ClosID != "" && len(lines) == 0:
			_ = os.Remove(dir)
			return fault.New(fault.NotFound, "linux.intelRdt.closID names %q, which resctrl does not have, and no schema to make it with", r.ClosID)
		case errors.Is(err, fs.ErrExist) && r.ClosID != "":
			made = false
		case err != nil:
			return fault.New(fault.Internal, "make the group of linux.intelRdt: %w", err)
		}
	}
	c.rdtMade = made && r.ClosID == ""
	if made {
		err = writeSchemata(dir, lines)
	} else {
		err = compareSchemata(dir, lines)
	}
	if err == nil && r.EnableMonitoring {
		if err = os.Mkdir(filepath.Join(dir, "mon_groups", c.id), 0o755); err != nil {
			err = fault.New(fault.Internal, "make the monitoring group of linux.intelRdt: %w", err)
		}
	}
	return err
}

// enterRdt puts a process that waits into the container's group.
func (c *Container) enterRdt(pid int) error {
	r := c.known().Linux.IntelRdt
	if r == nil {
		return nil
	}
	dir, err := c.rdtGroup(r)
	if err != nil {
		return err
	}
	groups := []string{dir}
	if r.EnableMonitoring {
		groups = append(groups, filepath.Join(dir, "mon_groups", c.id))
	}
	for _, g := range groups {
		if err := writeKernel(filepath.Join(g, "tasks"), strconv.Itoa(pid)); err != nil {
			return fault.New(fault.Internal, "enter the group of linux.intelRdt: %w", err)
		}
	}
	return nil
}

// removeRdt takes away what makeRdt made for this container alone.
func (c *Container) removeRdt() error {
	r := c.known().Linux.IntelRdt
	if r == nil {
		return nil
	}
	dir, err := c.rdtGroup(r)
	if err != nil {
		return nil // the file system is gone, and its groups with it
	}
	if r.EnableMonitoring {
		err = unix.Rmdir(filepath.Join(dir, "mon_groups", c.id))
	}
	if r.ClosID == "" && c.rdtMade {
		err = errors.Join(err, unix.Rmdir(dir))
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fault.New(fault.Internal, "remove the group of linux.intelRdt: %w", err)
	}
	return nil
}

// UpdateRdt changes the shares of a container that has some; an empty line stays
// as it is.
func (c *Container) UpdateRdt(l3CacheSchema, memBwSchema string) error {
	r := c.known().Linux.IntelRdt
	if r == nil {
		return fault.New(fault.Invalid, "container %s has no linux.intelRdt, whose schemas could be changed", c.id)
	}
	dir, err := c.rdtGroup(r)
	if err != nil {
		return err
	}
	return writeSchemata(dir, schemata(&specs.LinuxIntelRdt{L3CacheSchema: l3CacheSchema, MemBwSchema: memBwSchema}))
}

func writeSchemata(dir string, lines []string) error {
	for _, line := range lines {
		if err := writeKernel(filepath.Join(dir, "schemata"), line+"\n"); err != nil {
			return fault.New(fault.Invalid, "set %q of linux.intelRdt: %w", line, err)
		}
	}
	return nil
}

// writeKernel writes a file that is there already, in one call.
func writeKernel(name, text string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(text))
	return err
}

// compareSchemata refuses a group that somebody else made with other shares.
func compareSchemata(dir string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(dir, "schemata"))
	if err != nil {
		return fault.New(fault.Internal, "read the group of linux.intelRdt: %w", err)
	}
	have := map[string]string{}
	for line := range strings.Lines(string(text)) {
		for part, share := range shares(line) {
			have[part] = share
		}
	}
	for _, line := range lines {
		for part, share := range shares(line) {
			if have[part] != share {
				return fault.New(fault.Conflict, "the group %s of linux.intelRdt has %s=%s and not the %s that is asked for", filepath.Base(dir), part, have[part], share)
			}
		}
	}
	return nil
}

// shares reads a line such as L3:0=7f0;1=1f: the share of each part.
func shares(line string) map[string]string {
	out := map[string]string{}
	kind, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
	for part := range strings.SplitSeq(rest, ";") {
		if at, share, ok := strings.Cut(part, "="); ok {
			out[kind+":"+strings.TrimSpace(at)] = strings.TrimLeft(strings.ToLower(strings.TrimSpace(share)), "0")
		}
	}
	return out
}

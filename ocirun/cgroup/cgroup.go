// Package cgroup makes, limits and removes the control groups of one
// container, on cgroup v1 (also hybrid) and v2, by their files and, for devices
// on v2, by a program that the kernel asks.
//
// It sets what a specification names, in the container's groups. A group that
// exists already and is empty becomes the container's, as if it had been made
// for it, and goes with it. Groups above are made if they are missing, and
// stay. They are written to only for what a child cannot be without: on v1 the
// processors and memory nodes of an empty cpuset, on v2 the controllers.
package cgroup

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"golang.org/x/sys/unix"
)

// Member is a container's group in one hierarchy.
type Member struct {
	Controllers []string // v1; none of v2
	Dir         string   // absolute
	Mount       string   // where the hierarchy is mounted
}

// Name is what a group of v1 is called in the container.
func (m *Member) Name() string { return m.hierarchy().Name() }

func (m *Member) hierarchy() *cgroupfs.Hierarchy {
	return &cgroupfs.Hierarchy{Controllers: m.Controllers, Mount: m.Mount}
}

// Group is the set of a container's groups, one per hierarchy. Where v2 is
// mounted beside v1 the group there is the last; it says who belongs together and
// limits nothing.
type Group struct {
	Members []Member
	Unified bool
	unit    *unit // that systemd makes; nil for none

	NoDevices bool // rules for devices are not for this process to set, which is in a user namespace itself

	draft bool     // not all of them are there yet: see Draft
	made  []Member // by this process
}

// At names the groups of a path without making them. An absolute path starts at
// the root of each hierarchy, a relative one at this process's own group, and
// what Systemd gave at the unit.
func At(path string) (*Group, error) {
	path, u := unitOf(path)
	if path == Nowhere {
		unified, err := cgroupfs.Unified()
		return &Group{Unified: unified}, err
	}
	l, err := cgroupfs.Host()
	if err != nil {
		return nil, err
	}
	if filepath.Clean("/"+path) == "/" {
		return nil, fault.New(fault.Invalid, "the cgroups path %q names the root group", path)
	}
	g := &Group{Unified: len(l.V1) == 0, unit: u}
	if g.Unified {
		if l.V2 == nil {
			return nil, fault.New(fault.Unavailable, "no control group file system is mounted")
		}
		g.Members = []Member{{Dir: l.V2.Place(path), Mount: l.V2.Mount}}
		return g, nil
	}
	g.Members = make([]Member, 0, len(l.V1)+1)
	for i := range l.V1 {
		h := &l.V1[i]
		g.Members = append(g.Members, Member{h.Controllers, h.Place(path), h.Mount})
	}
	if l.V2 != nil {
		g.Members = append(g.Members, Member{Dir: l.V2.Place(path), Mount: l.V2.Mount})
	}
	return g, nil
}

// Create makes the groups of a path and sets the limits; when it fails it
// removes those that it made. A group that exists and has processes is refused.
// One of a unit is not made before Begin.
func Create(path string, r *specs.LinuxResources) (*Group, error) {
	g, err := At(path)
	switch {
	case err != nil:
	case g.unit != nil:
		g.unit.waits = true
	default:
		err = g.create(r)
	}
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Group) create(r *specs.LinuxResources) error {
	g.made = nil
	err := g.fill(r)
	if err != nil {
		_ = g.Delete()
	}
	return err
}

// fill makes the groups and limits them. One that fails stays a draft.
func (g *Group) fill(r *specs.LinuxResources) error {
	g.draft = true
	for i := range g.Members {
		m := &g.Members[i]
		err := g.begin(m)
		if err != nil && m.Controllers == nil && !g.Unified && Denied(err) { // as in a container that sees it read-only
			g.Members = g.Members[:i]
			break
		}
		if err == nil {
			err = g.prepare(m, r)
		}
		if err != nil {
			return err
		}
	}
	err := g.setAll(r)
	g.draft = err != nil
	return err
}

// setAll sets the limits of new groups, and the rules for devices also where none are named.
func (g *Group) setAll(r *specs.LinuxResources) error {
	if r == nil {
		return g.setDevices(nil)
	}
	return g.Set(r)
}

// begin makes a group, and notes it when it was not there before.
func (g *Group) begin(m *Member) error {
	isNew, err := g.make(m)
	if isNew {
		g.made = append(g.made, *m)
	}
	return err
}

// make makes a group, and tells whether it was not there before.
func (g *Group) make(m *Member) (isNew bool, err error) {
	err = unix.Mkdir(m.Dir, 0o755)
	if err == unix.ENOENT {
		if err = g.makeParents(m); err == nil {
			err = unix.Mkdir(m.Dir, 0o755)
		}
	}
	if err == unix.EEXIST {
		if procs, _ := cgroupfs.ProcsOf(m.Dir); len(procs) > 0 {
			return false, fault.New(fault.Conflict, "container's cgroup is not empty: %s has %d processes; another container may use it", m.Dir, len(procs))
		}
		if alone := (&Group{Members: []Member{*m}, Unified: g.Unified}); (g.Unified || contains(m.Controllers, "freezer")) && alone.Frozen() {
			return false, fault.New(fault.Conflict, "container's cgroup unexpectedly frozen: %s", m.Dir)
		}
		return false, nil
	}
	if err != nil {
		return false, fault.New(fault.Internal, "make the control group %s: %w", m.Dir, err)
	}
	return true, nil
}

// prepare gives a group what it needs before it can be limited.
func (g *Group) prepare(m *Member, r *specs.LinuxResources) error {
	if g.Unified {
		return enableControllers(m, r)
	}
	for _, c := range m.Controllers {
		if c == "cpuset" {
			return inheritCpuset(m.Mount, m.Dir)
		}
	}
	return nil
}

func (g *Group) makeParents(m *Member) error {
	parent := filepath.Dir(m.Dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	for _, c := range m.Controllers {
		if c == "cpuset" {
			if err := inheritCpusetFrom(m.Mount, parent); err != nil {
				return err
			}
			// Groups below begin with what it has: filling one that is empty has
			// the kernel look at all beside it.
			return write(parent, "cgroup.clone_children", "1")
		}
	}
	return nil
}

// inheritCpusetFrom fills each empty level between the mount and dir.
func inheritCpusetFrom(mount, dir string) error {
	if len(dir) <= len(mount) {
		return nil
	}
	if err := inheritCpusetFrom(mount, filepath.Dir(dir)); err != nil {
		return err
	}
	return inheritCpuset(mount, dir)
}

// inheritCpuset copies cpus and memory nodes from the parent: a v1 cpuset is
// born empty, and nothing can run in it. A parent that others left empty is
// filled too.
func inheritCpuset(mount, dir string) error {
	for _, name := range [...]string{"cpuset.cpus", "cpuset.mems"} {
		have, err := readFile(dir + "/" + name)
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(have)) > 0 {
			continue
		}
		above := filepath.Dir(dir)
		parent, err := readFile(above + "/" + name)
		if err == nil && len(bytes.TrimSpace(parent)) == 0 && len(above) > len(mount) {
			if err = inheritCpuset(mount, above); err == nil {
				parent, err = readFile(above + "/" + name)
			}
		}
		if err != nil {
			return err
		}
		if err := write(dir, name, string(bytes.TrimSpace(parent))); err != nil {
			return err
		}
	}
	return nil
}

// Hierarchies are those of v1 that the container has groups in.
func (g *Group) Hierarchies() []cgroupfs.Hierarchy {
	var list []cgroupfs.Hierarchy
	for _, m := range g.Members {
		if m.Controllers != nil {
			list = append(list, *m.hierarchy())
		}
	}
	return list
}

// dir is the group that has a v1 controller, "" if none has.
func (g *Group) dir(controller string) string {
	for i := range g.Members {
		for _, c := range g.Members[i].Controllers {
			if c == controller {
				return g.Members[i].Dir
			}
		}
	}
	return ""
}

// Sub names groups below g: PATH for all hierarchies or, on v1,
// CONTROLLER[,CONTROLLER]:PATH for some. They must exist.
func (g *Group) Sub(paths []string) (*Group, error) {
	sub := &Group{Members: slices.Clone(g.Members), Unified: g.Unified}
	if len(paths) > 0 && g.None() {
		return nil, none("choose a sub cgroup")
	}
	for _, p := range paths {
		names, rel, some := strings.Cut(p, ":")
		if !some {
			names, rel = "", p
		}
		if some && g.Unified {
			return nil, fault.New(fault.Invalid, "bad sub cgroup path %q: cgroup v2 has no controllers to choose", p)
		}
		chosen := map[string]bool{}
		for name := range strings.SplitSeq(names, ",") {
			if some && g.dir(name) == "" {
				return nil, fault.New(fault.Invalid, "unknown controller %q", name)
			}
			chosen[name] = true
		}
		for i := range sub.Members {
			m := &sub.Members[i]
			if some && !slices.ContainsFunc(m.Controllers, func(c string) bool { return chosen[c] }) {
				continue
			}
			top := g.Members[i].Dir
			m.Dir = filepath.Join(top, rel)
			if m.Dir != top && !strings.HasPrefix(m.Dir, top+"/") {
				return nil, fault.New(fault.Invalid, "bad sub cgroup path: %s is not a sub cgroup path: it leads out of the container's control group", p)
			}
		}
	}
	return sub, nil
}

// unified is the v2 group, nil where v2 is not mounted.
func (g *Group) unified() *Member {
	if n := len(g.Members); n > 0 && g.Members[n-1].Controllers == nil {
		return &g.Members[n-1]
	}
	return nil
}

// Of names the v2 group that a process is in.
func (g *Group) Of(pid int) (*Group, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if rel, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			m := g.Members[0]
			m.Dir = filepath.Join(m.Mount, rel)
			return &Group{Members: []Member{m}, Unified: true}, nil
		}
	}
	return nil, fault.New(fault.Internal, "the control group of process %d is not known", pid)
}

// TaskFiles opens for each v1 group the file to which a single-threaded process
// writes "0" to enter. cgroup.procs would wait for a grace period of the kernel,
// 15 ms on an idle machine.
func (g *Group) TaskFiles() ([]int, error) {
	if g.Unified || g.Waits() {
		return nil, nil
	}
	fds := make([]int, 0, len(g.Members))
	for i := range g.Members {
		if g.Members[i].Controllers == nil {
			continue
		}
		fd, err := unix.Open(g.Members[i].Dir+"/tasks", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			Close(fds)
			return nil, fault.New(fault.Internal, "adding pid to %s/cgroup.procs: %w", g.Members[i].Dir, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// Open gives the descriptor of the v2 group, for CLONE_INTO_CGROUP; -1 on v1
// alone, and for one that waits. Beside v1 it may be missing.
func (g *Group) Open() (int, error) {
	m := g.unified()
	if m == nil || g.Waits() {
		return -1, nil
	}
	fd, err := unix.Open(m.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT && !g.Unified {
		return -1, nil
	}
	if err != nil {
		return -1, fault.New(fault.Internal, "open the cgroup %s: %w", m.Dir, err)
	}
	return fd, nil
}

// Close closes descriptors.
func Close(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// killDir is the group whose members are the container's processes.
func (g *Group) killDir() string {
	if g.Unified && !g.None() {
		return g.Members[0].Dir
	}
	for _, c := range cgroupfs.Members {
		if d := g.dir(c); d != "" {
			return d
		}
	}
	if len(g.Members) > 0 {
		return g.Members[0].Dir
	}
	return ""
}

// Nested tells whether there are groups below the container's.
func (g *Group) Nested() bool {
	for _, m := range g.Members {
		list, err := os.ReadDir(m.Dir)
		if err != nil || slices.ContainsFunc(list, os.DirEntry.IsDir) {
			return true
		}
	}
	return false
}

// Procs lists the processes of the container, those of nested groups too.
func (g *Group) Procs() ([]int, error) {
	if g.None() {
		return nil, none("list the processes")
	}
	return cgroupfs.Procs(g.killDir())
}

// Signal sends sig to all processes. The group is frozen meanwhile so that a
// process that forks cannot slip through.
func (g *Group) Signal(sig unix.Signal) error {
	if g.None() {
		return none("signal all processes")
	}
	dir := g.killDir()
	if sig == unix.SIGKILL && g.Unified {
		if write(dir, "cgroup.kill", "1") == nil {
			return nil
		}
	}
	paused := g.Frozen() && sig != unix.SIGKILL // stays so; a kill wakes it, for the frozen do not die on v1
	frozen := g.Freeze(true) == nil
	procs, err := g.Procs()
	for _, pid := range procs {
		if e := unix.Kill(pid, sig); e != nil && e != unix.ESRCH {
			err = e
		}
	}
	if frozen && !paused {
		_ = g.Freeze(false)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fault.New(fault.Internal, "signal the processes of %s: %w", dir, err)
	}
	return nil
}

// Freeze stops or continues all processes, and waits until the kernel did it.
func (g *Group) Freeze(on bool) error {
	if g.None() {
		return none("toggle freezer")
	}
	if g.Unified {
		return g.freeze(on, g.Members[0].Dir, "cgroup.freeze", "0", "1", "cgroup.events", "frozen ")
	}
	dir := g.dir("freezer")
	if dir == "" {
		return fault.New(fault.Unavailable, "the freezer control group is not mounted")
	}
	return g.freeze(on, dir, "freezer.state", "THAWED", "FROZEN", "freezer.state", "")
}

func (g *Group) freeze(on bool, dir, file, off, onWord, stateFile, prefix string) error {
	word := off
	if on {
		word = onWord
	}
	deadline := time.Now().Add(2 * time.Second)
	for {
		if err := write(dir, file, word); err != nil {
			return err
		}
		b, err := readFile(dir + "/" + stateFile)
		if err != nil || strings.Contains(string(b), prefix+word) {
			return err
		}
		if time.Now().After(deadline) {
			_ = write(dir, file, off)
			return fault.New(fault.Unavailable, "the processes of %s did not freeze within 2 s", dir)
		}
		time.Sleep(time.Millisecond)
	}
}

// Frozen tells whether Freeze(true) holds.
func (g *Group) Frozen() bool {
	if g.None() {
		return false
	}
	if g.Unified {
		b, _ := readFile(g.Members[0].Dir + "/cgroup.freeze")
		return len(b) > 0 && b[0] == '1'
	}
	b, _ := readFile(g.dir("freezer") + "/freezer.state")
	return len(b) > 0 && b[0] == 'F'
}

// OOMKilled tells whether the kernel has killed a process of the container for
// want of memory.
func (g *Group) OOMKilled() bool {
	file, prefix := g.dir("memory")+"/memory.oom_control", "oom_kill "
	if g.None() || g.draft {
		return false
	}
	if g.Unified {
		file = g.Members[0].Dir + "/memory.events"
	}
	b, err := readFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(n) != "0"
		}
	}
	return false
}

// Delete kills what is left in the groups and removes them with all nested
// groups. A group that is gone already is no error. Of a draft only those are the
// container's that were made for it.
func (g *Group) Delete() error {
	if g.Waits() {
		return nil
	}
	if g.draft {
		g = &Group{Members: g.made, Unified: g.Unified}
	}
	if err := g.end(); err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	pause := 200 * time.Microsecond
	for {
		busy := ""
		for i := range g.Members {
			if err := cgroupfs.Remove(g.Members[i].Dir); err == unix.EBUSY {
				busy = g.Members[i].Dir
			} else if err != nil {
				return fault.New(fault.Internal, "remove the control group %s: %w", g.Members[i].Dir, err)
			}
		}
		if busy == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fault.New(fault.Unavailable, "the control group %s still has processes after 10 s of killing them", busy)
		}
		_ = g.Signal(unix.SIGKILL)
		procs, _ := cgroupfs.Procs(busy) // also who is in this group alone, as of a draft
		for _, pid := range procs {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(pause)
		pause = min(2*pause, 20*time.Millisecond)
	}
}

// readFile reads a small file of the control group file system.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Internal, "open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var b [4096]byte // on the stack: what is read is short, and each new page costs
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return nil, fault.New(fault.Internal, "read %s: %w", path, err)
	}
	return append([]byte(nil), b[:n]...), nil
}

// write sets one value of a group.
func write(dir, name, value string) error {
	fd, err := unix.Open(dir+"/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		unix.Close(fd)
	}
	if err != nil {
		return fault.New(fault.Internal, "set %s of the control group %s to %q: %w", name, dir, value, err)
	}
	return nil
}

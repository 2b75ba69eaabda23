package ocirun

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun/cgroup"
	"golang.org/x/sys/unix"
)

// gate is a pipe by which the child hears that its groups of v1 are made: the parent
// makes them while the child makes its namespaces and mounts. The child waits at the first step
// that needs them. Of a parent that is gone it sees the end of the pipe.
type gate struct{ in, out int } // the child's and the parent's end; 0 for none

func (g *gate) shut() bool { return g.in > 0 }

// begin closes what is not the child's own.
func (g *gate) begin(p *program) {
	if g.shut() {
		p.do("close", "", unix.SYS_CLOSE, num(g.out)).ignore()
	}
}

// passGate waits for the groups and enters them.
func (b *builder) passGate() {
	zero := b.str("0")
	b.do("wait for the control groups", "", unix.SYS_READ, num(b.gate.in), b.words(num(0)), num(1)).wants(1).otherwise(b.exit)
	b.do("close", "", unix.SYS_CLOSE, num(b.gate.in)).ignore()
	for i := range b.group.Members {
		m := &b.group.Members[i]
		if m.Controllers == nil { // of v2, in which it was born
			continue
		}
		tasks := b.slot()
		b.do("enter the control group", m.Dir, unix.SYS_OPENAT, cwd, b.str(m.Dir+"/tasks"), num(unix.O_WRONLY|unix.O_CLOEXEC)).into(tasks)
		b.do("enter the control group", m.Dir, unix.SYS_WRITE, tasks, zero, num(1))
		b.close(tasks)
	}
	b.gate = gate{}
}

// canBegin tells whether init can make its namespaces and mounts before it has groups
// of v1: nobody who looks at it then is to find it there, nor do its mounts come from there.
func canBegin(s *specs.Spec, o *Options) bool {
	if o.Rootless || o.Systemd || o.Stage != nil || namespaceOf(s, specs.UserNamespace) != nil || mountsPath(s) != "" {
		return false
	}
	if h := s.Hooks; h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0 {
		return false
	}
	for i := range s.Mounts {
		if strings.Contains(s.Mounts[i].Source, "/cgroup") {
			return false
		}
	}
	return true
}

// draftGroups opens the gate's pipe if init can begin before its groups are made;
// otherwise there is no group after it.
func (c *Container) draftGroups(a *attempt, o *Options) (err error) {
	if !canBegin(c.spec, o) {
		return nil
	}
	if c.group, err = cgroup.Draft(c.path); c.group == nil {
		return err
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return fault.New(fault.Internal, "make a pipe: %w", err)
	}
	a.gate = ends[1]
	a.b.gate.out = ends[1]
	if a.b.gate.in, err = a.above(ends[0], 3+len(o.ExtraFiles)); err != nil {
		return err
	}
	return c.useGroups(a)
}

// finishGroups makes the groups for which init waits.
func (c *Container) finishGroups(a *attempt) error {
	if a.gate < 0 {
		return nil
	}
	if err := c.group.Complete(a.b.resources()); err != nil {
		return err
	}
	c.warnOfDevices(a.b)
	_, err := retry(func() (int, error) { return unix.Write(a.gate, []byte{1}) })
	if err != nil {
		return fault.New(fault.Internal, "release the container's init: %w", err)
	}
	unix.Close(a.gate)
	a.gate = -1
	return nil
}

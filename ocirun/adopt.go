package ocirun

import (
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/ocirun/cgroup"
	"golang.org/x/sys/unix"
)

// Adoption is what a process has to know of a running container that is its
// child, when it has executed another program since it made it. The rest is in
// the bundle.
type Adoption struct {
	ID, Bundle, Cgroups string
	Pid                 int
	OwnPIDs, Hooks      bool
	Created             int64 // Unix time, ns
}

// Adoption tells of a started container that was made from its bundle alone.
func (c *Container) Adoption() Adoption {
	return Adoption{
		ID: c.id, Bundle: c.bundle, Cgroups: c.path, Pid: c.pid, OwnPIDs: c.ownPIDs,
		Hooks: c.hooks, Created: c.created.UnixNano(),
	}
}

// Adopt goes on with a container that this process made in an earlier program.
func Adopt(a Adoption) (*Container, error) {
	group, err := cgroup.At(a.Cgroups)
	if err != nil {
		return nil, err
	}
	c := &Container{id: a.ID, bundle: a.Bundle, path: a.Cgroups, group: group, pid: a.Pid, ownPIDs: a.OwnPIDs, hooks: a.Hooks,
		created: time.Unix(0, a.Created).UTC(), sync: -1}
	if c.pidfd, err = unix.PidfdOpen(a.Pid, 0); err != nil { // it is a child, which nobody else has collected
		c.pidfd = -1
	}
	return c, nil
}

// know notes what is asked of the specification while the container lives.
func (c *Container) know(s *specs.Spec) {
	c.spec, c.path, c.hooks = s, groupPath(s, c.id), s.Hooks != nil
	c.ownPIDs = false
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			c.ownPIDs = n.Path == ""
			break
		}
	}
}

// specification is the container's, read from the bundle where it was adopted:
// most containers are never asked anything that needs it.
func (c *Container) specification() (*specs.Spec, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.spec == nil {
		spec, err := ReadConfig(c.bundle, c.config)
		if err != nil {
			return nil, err
		}
		c.spec = spec
	}
	return c.spec, nil
}

// known is the specification, or enough of one to stop and delete a container
// whose own can no longer be read.
func (c *Container) known() *specs.Spec {
	spec, err := c.specification()
	if err != nil {
		return &specs.Spec{Linux: &specs.Linux{}, Process: &specs.Process{}}
	}
	return spec
}

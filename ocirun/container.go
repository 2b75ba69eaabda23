package ocirun

import (
	"context"
	"os"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/ocirun/cgroup"
	"golang.org/x/sys/unix"
)

// Container is a container that Create made or Load found. Its methods may be
// called from several goroutines, except that one goroutine calls Wait.
type Container struct {
	id, bundle string
	config     string // name of the configuration; "": config.json
	dir        string // of the state; "" none
	path       string // of the control groups
	ownPIDs    bool   // the end of init ends all processes of the container
	hooks      bool   // there are some
	group      *cgroup.Group
	pid        int
	started    uint64 // clock ticks after boot, to tell a reused pid; of loaded ones
	claimed    bool
	created    time.Time
	rdtMade    bool   // this process made its group
	mounted    uint64 // the mount of the root that others see, 0 if there is none

	reading sync.Mutex
	spec    *specs.Spec // see specification

	mu      sync.Mutex
	pidfd   int
	sync    int // the socket that releases init; -1 once released or when loaded
	arena   *arena
	program *program
}

func waitStatus(ws unix.WaitStatus) syscall.WaitStatus { return syscall.WaitStatus(ws) }

// Pid is the process id of the container's init, as this process sees it.
func (c *Container) Pid() int { return c.pid }

// Program is the ordered text of the kernel steps that init took; empty for a
// loaded container.
func (c *Container) Program() string {
	if c.program == nil {
		return ""
	}
	return c.program.String()
}

// Start lets init execute the user's program. Should the kernel refuse it
// although Create found it, the process says so on its standard error and
// exits with 255.
func (c *Container) Start() error {
	hooks, err := c.begin()
	if err != nil {
		return err
	}
	if hooks != nil {
		defer hooks.Close()
		if err := c.awaitInner(hooks); err != nil {
			return err
		}
	}
	if h := c.known().Hooks; h != nil {
		return c.runHooks(context.Background(), "poststart", h.Poststart, specs.StateRunning)
	}
	return nil
}

// begin releases init. It gives the FIFO by which init's hooks can be awaited,
// which happens without the lock: a signal does not wait for a hook.
func (c *Container) begin() (hooks *os.File, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir != "" {
		if hooks, err = c.release(); err != nil {
			return nil, err
		}
	} else {
		if c.sync < 0 {
			return nil, fault.New(fault.Conflict, "container %s is started already", c.id)
		}
		if err := unix.Send(c.sync, []byte{1}, unix.MSG_NOSIGNAL); err != nil {
			return nil, fault.New(fault.Conflict, "container %s ended before it was started: %w", c.id, err)
		}
	}
	if c.sync >= 0 {
		unix.Close(c.sync)
		c.sync = -1
	}
	c.program = nil // a tenth of what a supervising process holds
	return hooks, nil
}

// Wait waits for init to end and reaps it. It works in the process that
// created the container.
func (c *Container) Wait() (ExitStatus, error) {
	s, err := wait(c.pid)
	if err == nil {
		c.mu.Lock()
		c.letGo()
		c.mu.Unlock()
	}
	return s, err
}

// letGo frees what only a live init needs.
func (c *Container) letGo() {
	if c.sync >= 0 {
		unix.Close(c.sync)
		c.sync = -1
	}
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
		c.pidfd = -1
	}
	if c.arena != nil {
		c.arena.free()
		c.arena = nil
	}
}

func (c *Container) signal(sig unix.Signal, all bool) error {
	if all || sig == unix.SIGKILL && !c.ownPIDs && !c.group.None() {
		return c.group.Signal(sig)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	switch {
	case c.pidfd >= 0:
		err = unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
	case c.loaded() && c.alive():
		err = unix.Kill(c.pid, sig)
	default:
		err = unix.ESRCH
	}
	if err == unix.ESRCH {
		return fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	if err != nil {
		return fault.New(fault.Internal, "signal container %s: %w", c.id, err)
	}
	return nil
}

// Delete kills what is left in the container's control groups, removes them and
// the state, and runs the poststop hooks.
func (c *Container) Delete() error { return c.delete(c.group.Delete) }

// Leave is Delete, when init has ended, but for control groups in which nobody can
// be any more: these are left, for the caller or a later Collect to remove.
func (c *Container) Leave() error {
	if !c.ownPIDs || c.hooks || c.dir != "" || c.group.Systemd() {
		return c.Delete()
	}
	return c.delete(func() error { return nil })
}

func (c *Container) delete(groups func() error) error {
	err := groups()
	c.mu.Lock()
	c.letGo()
	c.mu.Unlock()
	for _, f := range [...]func() error{c.unmountRoot, c.removeRdt} {
		if e := f(); err == nil {
			err = e
		}
	}
	if c.dir != "" {
		if e := c.removeState(); err == nil {
			err = e
		}
	}
	if !c.hooks {
		return err
	}
	if h := c.known().Hooks; h != nil {
		if e := c.runHooks(context.Background(), "poststop", h.Poststop, specs.StateStopped); err == nil {
			err = e
		}
	}
	return err
}

// undo removes what a failed Create made.
func (c *Container) undo() {
	if c.group != nil {
		_ = c.group.Delete()
	}
	_ = c.unmountRoot()
	_ = c.removeRdt()
	if c.claimed {
		_ = c.removeState()
	}
}

// OOMKilled tells whether the kernel killed a process of the container for want
// of memory. It is valid until Delete.
func (c *Container) OOMKilled() bool { return c.group.OOMKilled() }

// Pause stops all processes of the container; Resume lets them go on.
func (c *Container) Pause() error  { return c.group.Freeze(true) }
func (c *Container) Resume() error { return c.group.Freeze(false) }

// Update changes limits of the container; what r does not name stays.
func (c *Container) Update(r *specs.LinuxResources) error {
	if !c.alive() {
		return fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	return c.group.Update(r)
}

// Stats are what the kernel counts for the container.
func (c *Container) Stats() (*cgroupfs.Stats, error) { return c.group.Stats() }

// OOMs counts how often the container was short of memory.
func (c *Container) OOMs() uint64 { return c.group.OOMs() }

// Processes lists the processes of the container as this process sees them.
func (c *Container) Processes() ([]int, error) { return c.group.Procs() }

// Process is a further process in a container, started by Exec.
type Process struct{ pid int }

// Pid is the id as this process sees it.
func (p *Process) Pid() int { return p.pid }

// Wait waits for the process to end and reaps it.
func (p *Process) Wait() (ExitStatus, error) { return wait(p.pid) }

package keeper

import (
	"context"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// container is what a runtime has made; in the state "created" at first.
type container interface {
	process
	start() error
	signal(sig syscall.Signal) error
	// exec starts a further process on s, whose side for the process stays open.
	exec(ctx context.Context, p *specs.Process, s *stdio) (process, error)
	// freeze stops all processes, or lets them go on.
	freeze(on bool) error
	// checkpoint writes all processes to files.
	checkpoint(c dump) error
	// update changes limits; what is not named stays.
	update(ctx context.Context, r *specs.LinuxResources) error
	// oomKilled tells whether the kernel killed a process of the container for
	// want of memory; valid after wait and before delete.
	oomKilled() bool
	// delete kills what is left and removes cgroups and the runtime's state. With
	// leave, after wait, empty cgroups may stay.
	delete(leave bool) error
}

// process is a child of ours.
type process interface {
	pid() int
	// wait waits for the end and returns the exit status, or 128 + the signal.
	// It is called once.
	wait() (code int, err error)
}

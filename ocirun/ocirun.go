// Package ocirun turns an OCI bundle into a running process: namespaces,
// mounts, control groups, credentials and the seccomp filter of the OCI
// runtime specification, on Linux.
//
// The container's init is no executed helper. The parent prepares a list of
// system calls outside the Go heap (see program), and a child that shares the
// parent's memory works through the list and executes the user's program at
// its end. No Go code runs in the child. All decisions are taken before the
// child exists; what it does can be read as text by the program's String.
package ocirun

import (
	"context"
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Options says what Create makes.
type Options struct {
	Bundle     string       // absolute directory; its config.json is read unless Spec is given
	Config     string       // another name of config.json, relative to the bundle; "": that
	Spec       *specs.Spec  // must not change while the container lives
	Text       []byte       // what Spec was read from, as it is kept beside the state; nil: Spec as JSON
	ID         string       // names the container: state directory, default cgroup
	StateDir   string       // directory that receives state.json; "" keeps none
	Stdio      [3]*os.File  // used when the process has no terminal; nil is /dev/null
	Console    *os.File     // connected socket that receives the pty master when process.terminal
	ExtraFiles []*os.File   // become descriptors 3, 4, … of the process
	NoPivot    bool         // move the root over "/" instead of pivot_root (initramfs)
	NoKeyring  bool         // keep the caller's session keyring
	Systemd    bool         // linux.cgroupsPath is SLICE:PREFIX:NAME, and systemd makes the control groups
	Rootless   bool         // go on without control groups where they cannot be made and no limit is asked for
	Stage      *os.File     // a mount namespace of internal/stage, for containers that it can serve; nil: none
	Warn       func(string) // hears of what cannot be granted and does no harm; nil: nobody
}

// ExitStatus is how a process ended.
type ExitStatus struct{ syscall.WaitStatus }

// Code is the exit code as a shell tells it: 128 plus the number of the signal
// that ended the process, or its own code.
func (s ExitStatus) Code() int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// ExecOptions says what Exec starts in a container.
type ExecOptions struct {
	Process    *specs.Process
	Stdio      [3]*os.File  // as in Options
	Console    *os.File     // as in Options
	ExtraFiles []*os.File   // as in Options
	Warn       func(string) // as in Options

	// Cgroups name groups below the container's to start in: PATH, or on v1
	// also CONTROLLER[,CONTROLLER]:PATH. Empty: the container's own, and on v2
	// init's where that has no room for processes.
	Cgroups []string
}

// Create makes the container of a bundle up to, not including, the user's
// process: the state that the specification calls created. When it fails
// nothing is left of the attempt, also when ctx ends before that. A program that cannot be executed is an error
// of the kind fault.Invalid here already.
func Create(ctx context.Context, o Options) (*Container, error) { return create(ctx, o) }

// Exec starts another process in the container's namespaces and control groups,
// unless ctx ends before.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Process, error) { return c.exec(ctx, o) }

// Signal sends sig to the container's init, or with all to every process of the
// container.
func (c *Container) Signal(sig unix.Signal, all bool) error { return c.signal(sig, all) }

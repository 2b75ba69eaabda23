package ocirun

import (
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// handListener passes the listener of a process's seccomp filter to the agent
// of the profile, with the state that the specification names for it.
func (c *Container) handListener(a *attempt, status specs.ContainerState) error {
	listener, err := unix.PidfdGetfd(a.pidfd, int(a.word), 0)
	if err != nil {
		return fault.New(fault.Internal, "take the listener of the seccomp filter: %w", err)
	}
	defer unix.Close(listener)
	s := c.spec.Linux.Seccomp
	text, err := json.Marshal(specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName},
		Pid: a.pid, Metadata: s.ListenerMetadata, State: c.hookState(status)})
	if err != nil {
		return fault.New(fault.Internal, "write the state for the seccomp agent: %w", err)
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fault.New(fault.Internal, "make a socket: %w", err)
	}
	defer unix.Close(socket)
	if err := unix.Connect(socket, &unix.SockaddrUnix{Name: s.ListenerPath}); err != nil {
		return fault.New(fault.Unavailable, "failed to connect with seccomp agent specified in the seccomp profile, %s: %w", s.ListenerPath, err)
	}
	if err := unix.Sendmsg(socket, text, unix.UnixRights(listener), nil, unix.MSG_NOSIGNAL); err != nil {
		return fault.New(fault.Unavailable, "send the listener to the seccomp agent %s: %w", s.ListenerPath, err)
	}
	return nil
}

package ocirun

import (
	"context"
	"encoding/json"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// agentPatience is how long an agent may take to be reached.
var agentPatience = 10 * time.Second

// handListener passes the listener of a process's seccomp filter to the agent
// of the profile, with the state that the specification names for it.
func (c *Container) handListener(ctx context.Context, a *attempt, status specs.ContainerState) error {
	listener, err := unix.PidfdGetfd(a.pidfd, int(a.word), 0)
	if err != nil {
		return fault.New(fault.Internal, "take the listener of the seccomp filter: %w", err)
	}
	defer unix.Close(listener)
	s := c.known().Linux.Seccomp
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
	if err := reach(ctx, socket, s.ListenerPath); err != nil {
		return fault.New(fault.Unavailable, "failed to connect with seccomp agent specified in the seccomp profile, %s: %w", s.ListenerPath, err)
	}
	n, err := retry(func() (int, error) {
		return unix.SendmsgN(socket, text, unix.UnixRights(listener), nil, unix.MSG_NOSIGNAL)
	})
	if err == nil && n < len(text) {
		err = unix.EAGAIN
	}
	if err != nil {
		return fault.New(fault.Unavailable, "send the listener to the seccomp agent %s: %w", s.ListenerPath, err)
	}
	return nil
}

// reach connects to an agent. One whose queue is full, because it takes nobody,
// would be waited for without end; the socket has a time-out for its sending too.
func reach(ctx context.Context, socket int, path string) error {
	wait := unix.NsecToTimeval(int64(20 * time.Millisecond))
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait); err != nil {
		return err
	}
	deadline := time.Now().Add(agentPatience)
	for {
		err := unix.Connect(socket, &unix.SockaddrUnix{Name: path})
		// A call with a time-out is not begun again after a signal, signal(7), and
		// the Go runtime sends itself many.
		if (err == unix.EAGAIN || err == unix.EINTR) && ctx.Err() == nil && time.Now().Before(deadline) {
			continue
		}
		if err != nil {
			return err
		}
		wait = unix.NsecToTimeval(int64(agentPatience))
		return unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
	}
}

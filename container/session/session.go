package session

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// Session is one exec. What is not guarded is not changed once it is in a Table.
type Session struct {
	ID, Container string
	Request       wire.ExecCreateRequest
	User          string // to run as, "" for the one that the image means
	Keys          []byte // that detach, as asked for

	made    chan struct{} // closed when pid is known
	done    chan struct{} // closed by end
	mu      sync.Mutex
	started bool
	running bool
	pid     int
	code    *int
	leaving bool // it has ended and is forgotten by the next sweep
}

// New makes a session that was not started.
func New(id, container string) *Session {
	return &Session{ID: id, Container: container, made: make(chan struct{}), done: make(chan struct{})}
}

// settleTime bounds the wait for the result of a process that is gone.
const settleTime = 2 * time.Second

// Begin marks a session as started, which it can be once.
func (s *Session) Begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started && s.running {
		return fault.New(fault.Conflict, "exec command %s is already running", s.ID)
	}
	if s.started {
		return fault.New(fault.Conflict, "exec command %s has already run", s.ID)
	}
	s.started, s.running = true, true
	return nil
}

// Exists notes the process.
func (s *Session) Exists(pid int) {
	s.mu.Lock()
	s.pid = pid
	s.mu.Unlock()
	close(s.made)
}

// end records the exit code, the first that is told.
func (s *Session) end(code int) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.code != nil {
		return false
	}
	s.started, s.running, s.code = true, false, &code
	close(s.done)
	return true
}

// Result is the exit code, nil before the end.
func (s *Session) Result() *int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code
}

// Running tells whether the process was started and has not ended.
func (s *Session) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// Settle waits for the result of a process that is no more: a client that saw
// the end of its output asks at once, and must get the exit code. It may even
// have seen the end before we heard of the beginning.
func (s *Session) Settle(ctx context.Context) {
	if !s.Running() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	select {
	case <-s.made:
	case <-s.done:
	case <-ctx.Done():
	}
	s.mu.Lock()
	over := s.pid != 0 && errors.Is(unix.Kill(s.pid, 0), unix.ESRCH)
	s.mu.Unlock()
	if !over {
		return
	}
	select {
	case <-s.done:
	case <-ctx.Done():
	}
}

// Made waits until the process is there, or is no more.
func (s *Session) Made(ctx context.Context) error {
	select {
	case <-s.made:
	case <-s.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// Done is closed when the process has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Inspect tells of the session.
func (s *Session) Inspect() wire.ExecInspectResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	req := s.Request
	return wire.ExecInspectResponse{
		ID: s.ID, ContainerID: s.Container, Running: s.running, ExitCode: s.code, Pid: s.pid,
		ProcessConfig: &wire.ExecProcessConfig{Tty: req.Tty, Entrypoint: req.Cmd[0], Arguments: req.Cmd[1:],
			Privileged: &req.Privileged, User: s.User},
		OpenStdin: req.AttachStdin, OpenStdout: req.AttachStdout, OpenStderr: req.AttachStderr,
		CanRemove: s.leaving, DetachKeys: s.Keys,
	}
}

// Note is what the supervising process keeps of an exec for the next daemon,
// beside what it knows itself.
type Note struct {
	User                  string `json:",omitempty"`
	Privileged            bool   `json:",omitempty"`
	Stdin, Stdout, Stderr bool   `json:",omitempty"`
	Keys                  []byte `json:",omitempty"`
	Probe                 bool   `json:",omitempty"` // a health check's: nobody's exec
}

// Note is what the next daemon shall know of the session.
func (s *Session) Note() []byte {
	q := s.Request
	return Note{User: s.User, Privileged: q.Privileged, Stdin: q.AttachStdin, Stdout: q.AttachStdout, Stderr: q.AttachStderr, Keys: s.Keys}.Encode()
}

// Encode gives it as it is kept.
func (n Note) Encode() []byte {
	data, err := json.Marshal(n)
	if err != nil {
		panic(err) // of strings and booleans
	}
	return data
}

// Restored makes the session of an exec that an earlier daemon started.
func Restored(container string, t supervise.ExecStatus, of Note) *Session {
	s := New(t.ID, container)
	q := &s.Request
	q.Cmd, q.Tty, q.Privileged = t.Args, t.TTY, of.Privileged
	q.AttachStdin, q.AttachStdout, q.AttachStderr = of.Stdin, of.Stdout, of.Stderr
	s.User, s.Keys = of.User, append([]byte{}, of.Keys...)
	s.started, s.running = true, true
	s.Exists(t.Pid)
	return s
}

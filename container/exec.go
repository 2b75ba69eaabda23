package container

import (
	"context"
	"errors"
	"sync"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// Execs are the further processes of running containers. An exec belongs to a
// run: what is known of it is in memory, and in that of the supervising process
// from its start on, which tells it to the next daemon. Execs is safe for
// concurrent use.
type Execs struct {
	containers *Service

	mu          sync.Mutex
	byID        map[string]*session
	byContainer map[string]map[string]*session
	sweeping    *time.Timer // nil unless an exec that ended is remembered
	closed      bool
}

func newExecs(s *Service) *Execs {
	return &Execs{containers: s, byID: map[string]*session{}, byContainer: map[string]map[string]*session{}}
}

// Execs are those of all containers.
func (s *Service) Execs() *Execs { return s.execs }

// session is one exec.
type session struct {
	id, container string
	request       wire.ExecCreateRequest
	user          string // to run as, "" for the one that the image means
	keys          []byte // that detach, as asked for

	made    chan struct{} // closed when pid is known
	done    chan struct{} // closed by end
	mu      sync.Mutex
	started bool
	running bool
	pid     int
	code    *int
	leaving bool // it has ended and is forgotten by the next sweep
}

func newSession(id, container string) *session {
	return &session{id: id, container: container, made: make(chan struct{}), done: make(chan struct{})}
}

const (
	// sweepTime is the time between two sweeps. What ended before the last one
	// is forgotten by this one, so within five minutes.
	sweepTime = 150 * time.Second
	// settleTime bounds the wait for the result of a process that is gone.
	settleTime = 2 * time.Second
)

func (e *Execs) add(n *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.byID[n.id] = n
	of := e.byContainer[n.container]
	if of == nil {
		of = map[string]*session{}
		e.byContainer[n.container] = of
	}
	of[n.id] = n
}

func (e *Execs) removeLocked(n *session) {
	delete(e.byID, n.id)
	if of := e.byContainer[n.container]; of != nil {
		if delete(of, n.id); len(of) == 0 {
			delete(e.byContainer, n.container)
		}
	}
}

func (e *Execs) find(id string) (*session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n, ok := e.byID[id]; ok {
		return n, nil
	}
	return nil, fault.New(fault.NotFound, "No such exec instance: %s", id)
}

// all are the sessions of a container.
func (e *Execs) all(container string) []*session {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]*session, 0, len(e.byContainer[container]))
	for _, n := range e.byContainer[container] {
		list = append(list, n)
	}
	return list
}

// of lists the execs of a container that have not ended.
func (e *Execs) of(container string) []string {
	var ids []string
	for _, n := range e.all(container) {
		if n.result() == nil {
			ids = append(ids, n.id)
		}
	}
	return ids
}

// forget drops the sessions of a container that is removed.
func (e *Execs) forget(container string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.byContainer[container] {
		e.removeLocked(n)
	}
}

// close stops the sweeping.
func (e *Execs) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.sweeping != nil {
		e.sweeping.Stop()
	}
}

// keep remembers a session that has ended until the sweep after next.
func (e *Execs) keep() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sweepLaterLocked()
}

func (e *Execs) sweepLaterLocked() {
	if e.sweeping == nil && !e.closed {
		e.sweeping = time.AfterFunc(sweepTime, e.sweep)
	}
}

// sweep forgets what ended before the last sweep.
func (e *Execs) sweep() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sweeping = nil
	for _, n := range e.byID {
		n.mu.Lock()
		ended, leaving := n.code != nil, n.leaving
		n.leaving = ended
		n.mu.Unlock()
		switch {
		case leaving:
			e.removeLocked(n)
		case ended:
			e.sweepLaterLocked()
		}
	}
}

// begin marks a session as started, which it can be once.
func (n *session) begin() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.started && n.running {
		return fault.New(fault.Conflict, "exec command %s is already running", n.id)
	}
	if n.started {
		return fault.New(fault.Conflict, "exec command %s has already run", n.id)
	}
	n.started, n.running = true, true
	return nil
}

// exists notes the process.
func (n *session) exists(pid int) {
	n.mu.Lock()
	n.pid = pid
	n.mu.Unlock()
	close(n.made)
}

// end records the exit code, the first that is told.
func (n *session) end(code int) (first bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.code != nil {
		return false
	}
	n.started, n.running, n.code = true, false, &code
	close(n.done)
	return true
}

// result is the exit code, nil before the end.
func (n *session) result() *int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.code
}

func (n *session) isRunning() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running
}

// settle waits for the result of a process that is no more: a client that saw
// the end of its output asks at once, and must get the exit code. It may even
// have seen the end before we heard of the beginning.
func (n *session) settle(ctx context.Context) {
	if !n.isRunning() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	select {
	case <-n.made:
	case <-n.done:
	case <-ctx.Done():
	}
	n.mu.Lock()
	over := n.pid != 0 && errors.Is(unix.Kill(n.pid, 0), unix.ESRCH)
	n.mu.Unlock()
	if !over {
		return
	}
	select {
	case <-n.done:
	case <-ctx.Done():
	}
}

// Inspect tells of an exec; its result for some minutes after its end.
func (e *Execs) Inspect(ctx context.Context, execID string) (wire.ExecInspectResponse, error) {
	n, err := e.find(execID)
	if err != nil {
		return wire.ExecInspectResponse{}, err
	}
	n.settle(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	req := n.request
	return wire.ExecInspectResponse{
		ID: n.id, ContainerID: n.container, Running: n.running, ExitCode: n.code, Pid: n.pid,
		ProcessConfig: &wire.ExecProcessConfig{Tty: req.Tty, Entrypoint: req.Cmd[0], Arguments: req.Cmd[1:],
			Privileged: &req.Privileged, User: n.user},
		OpenStdin: req.AttachStdin, OpenStdout: req.AttachStdout, OpenStderr: req.AttachStderr,
		CanRemove: n.leaving, DetachKeys: n.keys,
	}, nil
}

// Resize sets the size of an exec's terminal, in characters. Without a terminal
// there is none to set, which is no error.
func (e *Execs) Resize(ctx context.Context, execID string, height, width uint16) error {
	n, _, keeper, err := e.running(execID)
	if err != nil {
		return err
	}
	if !n.isRunning() {
		return fault.New(fault.Invalid, "exec process is not started")
	}
	select {
	case <-n.made: // a client tells the size as soon as it has asked for the start
	case <-n.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !n.request.Tty {
		return nil
	}
	return keeper.Resize(ctx, execID, height, width)
}

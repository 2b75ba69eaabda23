package container

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/supervise"
)

// Execs are the further processes of running containers. They live in memory:
// an exec belongs to a run, and the process that runs it to the supervising
// process. Execs is safe for concurrent use.
type Execs struct {
	containers *Service
	mu         sync.Mutex
	byID       map[string]*session
}

// Execs are those of all containers.
func (s *Service) Execs() *Execs { return s.execs }

// session is one exec.
type session struct {
	id, container string
	request       wire.ExecCreateRequest

	made    chan struct{} // closed when pid is known
	done    chan struct{} // closed by end
	mu      sync.Mutex
	started bool
	running bool
	pid     int
	code    *int
	ended   time.Time
}

const (
	// keepEnded is how long the result of an exec can still be asked for.
	keepEnded = 5 * time.Minute
	// settleTime bounds the wait for the result of a process that is gone.
	settleTime = 2 * time.Second
)

func (e *Execs) add(n *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, old := range e.byID {
		if old.forgettable() {
			delete(e.byID, id)
		}
	}
	e.byID[n.id] = n
}

func (n *session) forgettable() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.ended.IsZero() && time.Since(n.ended) > keepEnded
}

func (e *Execs) find(id string) (*session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n, ok := e.byID[id]; ok {
		return n, nil
	}
	return nil, fault.New(fault.NotFound, "No such exec instance: %s", id)
}

// forget drops the sessions of a container that is removed.
func (e *Execs) forget(container string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, n := range e.byID {
		if n.container == container {
			delete(e.byID, id)
		}
	}
}

// drop forgets the sessions of a run that is over which were never started.
func (e *Execs) drop(container string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, n := range e.byID {
		n.mu.Lock()
		if n.container == container && !n.started {
			delete(e.byID, id)
		}
		n.mu.Unlock()
	}
}

// of lists the running execs of a container.
func (e *Execs) of(container string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ids []string
	for id, n := range e.byID {
		n.mu.Lock()
		if n.container == container && n.running {
			ids = append(ids, id)
		}
		n.mu.Unlock()
	}
	return ids
}

// Create prepares a further process in a running container.
func (e *Execs) Create(ctx context.Context, nameOrID string, req wire.ExecCreateRequest) (id string, err error) {
	r, err := e.containers.store.find(nameOrID)
	if err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 {
		return "", fault.New(fault.Invalid, "No exec command specified")
	}
	if _, err := parseDetachKeys(req.DetachKeys); err != nil {
		return "", err
	}
	if _, _, err := e.containers.running(r); err != nil {
		return "", err
	}
	if req.User != "" {
		if err := e.checkUser(&r, req.User); err != nil {
			return "", err
		}
	}
	n := &session{id: idgen.New(), container: r.ID, request: req, made: make(chan struct{}), done: make(chan struct{})}
	e.add(n)
	e.containers.publish(r, events.Action("exec_create: "+strings.Join(req.Cmd, " ")), "execID", n.id)
	return n.id, nil
}

// checkUser refuses a user whom the container does not know.
func (e *Execs) checkUser(r *Record, who string) error {
	root, err := e.containers.cfg.Snapshots.Mount(r.ID)
	if err != nil {
		return err
	}
	_, err = e.containers.specInput(r, root, who)
	return err
}

// ExecStartOptions as in POST /exec/{id}/start.
type ExecStartOptions struct {
	Detach      bool
	TTY         bool
	ConsoleSize *[2]uint // height, width in characters
}

// Start runs a prepared process. Attached, the client's socket is handed
// to the supervising process; what is wrong with the program is then told on
// the stream as well as returned.
func (e *Execs) Start(ctx context.Context, execID string, o ExecStartOptions, hijack Hijack) error {
	n, r, keeper, err := e.running(execID)
	if err != nil {
		return err
	}
	if err := n.begin(); err != nil {
		return err
	}
	config, err := e.config(&r, n, o)
	if err != nil {
		n.end(126)
		return err
	}
	e.containers.publish(r, events.Action("exec_start: "+strings.Join(n.request.Cmd, " ")), "execID", n.id)
	ctx = context.WithoutCancel(ctx)
	if o.Detach {
		return e.run(ctx, r, n, keeper, config, nil)
	}
	conn, buffered, err := hijack(n.request.Tty)
	if err != nil {
		n.end(126)
		return err
	}
	config.Attach.Buffered = buffered
	client, err := hand(conn)
	if err != nil {
		n.end(126)
		return err
	}
	client.letRead()
	err = e.run(ctx, r, n, keeper, config, client)
	if err != nil {
		text := []byte(err.Error() + "\r\n")
		if !n.request.Tty {
			header := logs.Header(logs.Stdout, len(text))
			text = append(header[:], text...)
		}
		_, _ = client.file.Write(text)
	}
	client.close()
	return errors.Join(err, client.wait())
}

// running finds an exec, its container, and the process that supervises it.
func (e *Execs) running(execID string) (*session, Record, *supervise.Keeper, error) {
	n, err := e.find(execID)
	if err != nil {
		return nil, Record{}, nil, err
	}
	r, err := e.containers.store.find(n.container)
	if err != nil {
		return nil, Record{}, nil, err
	}
	keeper, _, err := e.containers.running(r)
	return n, r, keeper, err
}

// run starts the process and sees to its end.
func (e *Execs) run(ctx context.Context, r Record, n *session, keeper *supervise.Keeper, c supervise.ExecConfig, client *handed) error {
	var pid int
	var err error
	if client != nil {
		pid, err = keeper.Exec(ctx, c, client.file)
	} else {
		pid, err = keeper.Exec(ctx, c, nil)
	}
	if errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Conflict) { // it ended between the question and the deed
		err = notRunning(r)
	} else if err != nil {
		var code int
		code, err = execFailure(err)
		n.end(code)
		return err
	}
	if err != nil {
		n.end(126)
		return err
	}
	n.mu.Lock()
	n.pid = pid
	n.mu.Unlock()
	close(n.made)
	e.containers.watchers.Go(func() {
		code, err := keeper.ExecWait(context.Background(), n.id) // ends with the keeper's connection
		if err != nil {
			code = 137
		}
		n.end(code)
		if !e.containers.isClosing() {
			e.containers.publish(r, "exec_die", "execID", n.id, "exitCode", strconv.Itoa(code))
		}
	})
	return nil
}

// execFailure gives the exit code and Docker's words of a program that could
// not be executed.
func execFailure(err error) (int, error) {
	text := strings.ToLower(err.Error())
	has := func(part string) bool { return strings.Contains(text, part) }
	code, suffix := 126, ""
	switch {
	case has("is a directory"):
		suffix = ": permission denied"
	case has("executable file not found"), has("no such file or directory"):
		code = 127
	}
	return code, fault.New(fault.Invalid, "OCI runtime exec failed: exec failed: unable to start container process: %w%s", err, suffix)
}

func (e *Execs) config(r *Record, n *session, o ExecStartOptions) (supervise.ExecConfig, error) {
	root, err := e.containers.cfg.Snapshots.Mount(r.ID)
	if err != nil {
		return supervise.ExecConfig{}, err
	}
	who := n.request.User
	if who == "" {
		who = r.Config.User
	}
	in, err := e.containers.specInput(r, root, who)
	if err != nil {
		return supervise.ExecConfig{}, err
	}
	req := n.request
	if o.ConsoleSize != nil {
		req.ConsoleSize = o.ConsoleSize
	}
	process, err := spec.Exec(&req, in)
	if err != nil {
		return supervise.ExecConfig{}, err
	}
	keys, err := parseDetachKeys(req.DetachKeys)
	return supervise.ExecConfig{ID: n.id, Process: *process, Attach: supervise.AttachOptions{
		Stdin: req.AttachStdin, Stdout: req.AttachStdout, Stderr: req.AttachStderr,
		Multiplexed: !req.Tty, DetachKeys: keys,
	}}, err
}

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

func (n *session) end(code int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running, n.code, n.ended = false, &code, time.Now()
	close(n.done)
}

// settle waits for the result of a process that is no more: a client that saw
// the end of its output asks at once, and must get the exit code. It may even
// have seen the end before we heard of the beginning.
func (n *session) settle(ctx context.Context) {
	n.mu.Lock()
	running := n.running
	n.mu.Unlock()
	if !running {
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
			Privileged: &req.Privileged, User: req.User},
		OpenStdin: req.AttachStdin, OpenStdout: req.AttachStdout, OpenStderr: req.AttachStderr,
		CanRemove: n.code != nil, DetachKeys: []byte(req.DetachKeys),
	}, nil
}

// Resize sets the size of an exec's terminal, in characters.
func (e *Execs) Resize(ctx context.Context, execID string, height, width uint16) error {
	_, _, keeper, err := e.running(execID)
	if err != nil {
		return err
	}
	return keeper.Resize(ctx, execID, height, width)
}

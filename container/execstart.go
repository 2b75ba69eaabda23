package container

import (
	"context"
	"errors"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/session"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/container/stream"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/supervise"
)

// Create prepares a further process in a running container.
func (e *Execs) Create(ctx context.Context, nameOrID string, req wire.ExecCreateRequest) (id string, err error) {
	r, err := e.containers.store.Find(nameOrID)
	if err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 {
		return "", fault.New(fault.Invalid, "No exec command specified")
	}
	keys, err := stream.DetachKeys(req.DetachKeys)
	if err != nil {
		return "", fault.New(fault.Invalid, "Invalid escape keys (%s) provided", req.DetachKeys)
	}
	if _, _, err := e.containers.lives.running(r); err != nil {
		return "", err
	}
	if err := awake(r, nameOrID); err != nil {
		return "", err
	}
	if req.User != "" {
		if err := e.checkUser(&r, req.User); err != nil {
			return "", err
		}
	}
	n := session.New(idgen.New(), r.ID)
	n.Request, n.User, n.Keys = req, req.User, []byte{}
	if req.DetachKeys != "" {
		n.Keys = keys
	}
	if n.User == "" {
		n.User = r.Config.User
	}
	e.sessions.Add(n)
	e.containers.publish(r, execAction(events.ActionExecCreate, req.Cmd), "execID", n.ID)
	return n.ID, nil
}

// execAction is an action with the command line behind it, in Docker's form: a
// program alone has a space after it.
func execAction(action events.Action, argv []string) events.Action {
	return action + ": " + events.Action(argv[0]+" "+strings.Join(argv[1:], " "))
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
	TTY         bool     // the client expects a terminal's raw stream, whatever the exec has
	ConsoleSize *[2]uint // height, width in characters
	Exit        bool     // its exit code ends the stream: supervise.AttachOptions
}

// Start runs a prepared process. Attached, the client's socket is handed
// to the supervising process; what is wrong with the program is then told on
// the stream as well as returned.
func (e *Execs) Start(ctx context.Context, execID string, o ExecStartOptions, hijack Hijack) error {
	n, r, keeper, err := e.running(execID)
	if err != nil {
		return err
	}
	if err := awake(r, r.ID); err != nil {
		return err
	}
	if err := n.Begin(); err != nil {
		return err
	}
	config, err := e.config(&r, n, o)
	if err != nil {
		e.sessions.End(n, 126)
		return err
	}
	e.containers.publish(r, execAction(events.ActionExecStart, n.Request.Cmd), "execID", n.ID)
	ctx = context.WithoutCancel(ctx)
	if o.Detach {
		return e.run(ctx, r, n, keeper, config, nil)
	}
	conn, head, buffered, err := hijack(o.TTY)
	if err != nil {
		e.sessions.End(n, 126)
		return err
	}
	config.Attach.Buffered = buffered
	client, err := stream.Hand(conn, head)
	if err == nil {
		err = client.Welcome()
	}
	if err != nil {
		e.sessions.End(n, 126)
		return err
	}
	err = e.run(ctx, r, n, keeper, config, client)
	if err != nil {
		text := []byte(err.Error() + "\r\n")
		if !o.TTY {
			header := logs.Header(logs.Stdout, len(text))
			text = append(header[:], text...)
		}
		_, _ = client.File.Write(text)
	}
	client.Close()
	return errors.Join(err, client.Wait())
}

// running finds an exec, its container, and the process that supervises it.
func (e *Execs) running(execID string) (*session.Session, Record, *supervise.Keeper, error) {
	n, err := e.sessions.Find(execID)
	if err != nil {
		return nil, Record{}, nil, err
	}
	r, err := e.containers.store.Find(n.Container)
	if err != nil {
		return nil, Record{}, nil, err
	}
	keeper, _, err := e.containers.lives.running(r)
	if err == nil {
		err = awake(r, r.ID)
	}
	return n, r, keeper, err
}

// awake refuses a container whose processes stand still: a further one would
// not come to its program. It is called as the client called it.
func awake(r Record, called string) error {
	if r.State == record.Paused {
		return fault.New(fault.Conflict, "Container %s is paused, unpause the container before exec", called)
	}
	return nil
}

// run starts the process and sees to its end.
func (e *Execs) run(ctx context.Context, r Record, n *session.Session, keeper *supervise.Keeper, c supervise.ExecConfig, client *stream.Client) error {
	var pid int
	var err error
	if client != nil {
		pid, err = keeper.Execs.Start(ctx, c, client.File)
	} else {
		pid, err = keeper.Execs.Start(ctx, c, nil)
	}
	if err != nil {
		code, err := execFailure(r, err)
		e.sessions.End(n, code)
		return err
	}
	n.Exists(pid)
	e.containers.tasks.Go(func() { e.follow(r, n, keeper) })
	return nil
}

// follow waits for the end of an exec. When the connection ends first, who
// connects next goes on (resume), or the end of the run is the exec's (runOver).
func (e *Execs) follow(r Record, n *session.Session, keeper *supervise.Keeper) {
	exit, err := keeper.Execs.Wait(context.Background(), n.ID) // ends with the keeper's connection
	switch {
	case err == nil:
		e.ended(r, n, exit.Code)
	case errors.Is(err, fault.NotFound): // nobody knows
		e.ended(r, n, killed)
	}
}

// killed is the exit code of a process that SIGKILL ended.
const killed = 137

// ended records the end of an exec and tells of it.
func (e *Execs) ended(r Record, n *session.Session, code int) {
	if !e.sessions.End(n, code) {
		return
	}
	if !e.containers.tasks.Over() { // else the next daemon tells
		e.containers.publish(r, events.ActionExecDie, "execID", n.ID, "exitCode", strconv.Itoa(code))
	}
}

// execFailure gives the exit code and Docker's words of a program that could
// not be executed.
func execFailure(r Record, err error) (int, error) {
	if errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Conflict) { // it ended between the question and the deed
		return 126, notRunning(r)
	}
	text := strings.ToLower(err.Error())
	has := func(part string) bool { return strings.Contains(text, part) }
	code, suffix := 126, ""
	switch {
	case has("process.cwd"):
		return code, fault.New(fault.Invalid, "OCI runtime exec failed: exec failed: Cwd must be an absolute path")
	case has("is a directory"):
		suffix = ": permission denied"
	case has("executable file not found"), has("no such file or directory"):
		code = 127
	}
	return code, fault.New(fault.Invalid, "OCI runtime exec failed: exec failed: unable to start container process: %w%s", err, suffix)
}

func (e *Execs) config(r *Record, n *session.Session, o ExecStartOptions) (supervise.ExecConfig, error) {
	req := n.Request
	if o.ConsoleSize != nil {
		req.ConsoleSize = o.ConsoleSize
	}
	process, err := e.process(r, &req, n.User)
	if err != nil {
		return supervise.ExecConfig{}, err
	}
	keys := n.Keys
	if len(keys) == 0 {
		keys, err = stream.DetachKeys("")
	}
	return supervise.ExecConfig{ID: n.ID, Process: *process, Note: n.Note(), Attach: supervise.AttachOptions{
		// A client that expects a terminal's stream cannot tell stderr apart.
		Stdin: req.AttachStdin, Stdout: req.AttachStdout, Stderr: req.AttachStderr && !o.TTY,
		Multiplexed: !o.TTY, Exit: o.Exit, DetachKeys: keys,
	}}, err
}

// process is what the request means in the container.
func (e *Execs) process(r *Record, req *wire.ExecCreateRequest, who string) (*specs.Process, error) {
	root, err := e.containers.cfg.Snapshots.Mount(r.ID)
	if err != nil {
		return nil, err
	}
	if err := e.containers.cfg.Confinement.load(r); err != nil {
		return nil, err
	}
	in, err := e.containers.specInput(r, root, who)
	if err != nil {
		return nil, err
	}
	return spec.Exec(req, in)
}

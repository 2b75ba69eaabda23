package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/cli/stream"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Run is the command run.
func Run() *command.Command {
	f := command.NewFlags()
	r := &run{createFlags: newCreateFlags(f)}
	f.BoolVarP(&r.detach, "detach", "d", false, "Run container in background and print container ID")
	f.StringVar(&r.detachKeys, "detach-keys", "", option.DetachKeys)
	f.BoolVar(&r.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	return &command.Command{
		Usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]", MinArgs: 1, MaxArgs: -1, Program: true, Flags: f,
		Example: "tare run --rm -it -v $PWD:/src alpine sh",
		Run:     r.run,
	}
}

type run struct {
	*createFlags
	detach, sigProxy bool
	detachKeys       string
}

func (r *run) run(ctx context.Context, s *command.Session, args []string) error {
	request, err := r.createFlags.request(args[0], args[1:])
	if err != nil {
		return usageError(err)
	}
	if r.detach {
		if len(r.attach.Values) > 0 {
			return fault.New(fault.Invalid, "conflicting options: cannot specify both --attach and --detach")
		}
		request.AttachStdin, request.AttachStdout, request.AttachStderr, request.StdinOnce = false, false, false, false
	} else if err := stream.CheckInput(s.In, request.AttachStdin, request.Tty); err != nil {
		return err
	}
	keys := r.detachKeys
	if keys == "" {
		keys = s.Config().DetachKeys
	}
	watched, err := stream.ParseKeys(keys)
	if err != nil {
		return usageError(err)
	}
	request.HostConfig.ConsoleSize[0], request.HostConfig.ConsoleSize[1] = stream.Size(s.Out)
	cl, err := s.Client()
	if err != nil {
		return runError(err)
	}
	id, err := r.create(ctx, s, request)
	if err != nil {
		return runError(err)
	}
	if r.detach {
		_, written := fmt.Fprintln(s.Out, id) // it is there, whatever becomes of the start
		if err := cl.ContainerStart(ctx, id, keys); err != nil {
			return startError(err)
		}
		return written
	}
	f := foreground{session: s, client: cl, id: id, tty: request.Tty, removed: request.HostConfig.AutoRemove,
		keys: keys, watched: watched, sigProxy: r.sigProxy,
		stdin: request.AttachStdin, stdout: request.AttachStdout, stderr: request.AttachStderr}
	return f.run(ctx)
}

// foreground starts a container with this program's streams and takes over its
// exit code.
type foreground struct {
	session               *command.Session
	client                *client.Client
	id                    string
	tty, removed          bool
	stdin, stdout, stderr bool
	sigProxy              bool
	keys                  string
	watched               []byte

	checkpoint, checkpointDir string
	lazy                      bool
}

// start starts the container, from a checkpoint if one is named.
func (f *foreground) start(ctx context.Context) error {
	if f.checkpoint != "" || f.checkpointDir != "" {
		return f.client.ContainerStartFrom(ctx, f.id, f.checkpoint, f.checkpointDir, f.lazy)
	}
	return f.client.ContainerStart(ctx, f.id, f.keys)
}

func (f *foreground) run(ctx context.Context) error {
	// With its output attached to by nobody it runs in the background once it
	// has its input, as in Docker.
	background := !f.stdout && !f.stderr
	if background {
		if _, err := fmt.Fprintln(f.session.Out, f.id); err != nil {
			return err
		}
	}
	signals := f.catchSignals()
	attached, waiter, err := f.connect(ctx)
	if err != nil {
		return runError(err)
	}
	defer waiter.Close()
	restore := func() {}
	if f.tty && f.stdin {
		if restore, err = stream.Raw(f.session.In); err != nil {
			return runError(err)
		}
		defer restore()
	}
	if err := f.start(ctx); err != nil {
		restore()
		if attached != nil {
			attached.Stream.Close()
		}
		if f.removed {
			waiter.Code(ctx)
		}
		return startError(err)
	}
	if signals := <-signals; signals != nil {
		go signals.Forward(ctx, f.kill, func() { restore(); f.giveUp() })
	}
	if f.tty {
		go stream.FollowSize(f.session.Out, func(h, w uint) { f.client.ContainerResize(ctx, f.id, h, w) })
	}
	if attached != nil {
		detached, err := attached.Run(ctx)
		restore()
		if detached {
			return nil
		}
		if err != nil {
			return runError(err)
		}
	}
	if background {
		return nil
	}
	code, err := waiter.Code(ctx)
	if errors.Is(err, client.ErrBroken) {
		return &command.Exit{Code: 125, Err: fmt.Errorf("%w; the container goes on without this client", err)}
	}
	if err != nil {
		return runError(err)
	}
	if code != 0 {
		return &command.Exit{Code: code}
	}
	return nil
}

// kill passes a signal on. Who sent it to a container that has ended meant
// nobody any more.
func (f *foreground) kill(ctx context.Context, signal string) {
	f.client.ContainerKill(ctx, f.id, signal)
}

// giveUp leaves a container alone that minds no signal.
func (f *foreground) giveUp() {
	fmt.Fprint(f.session.Err, "\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n")
	os.Exit(1)
}

// catchSignals starts to hold signals back, beside the requests that come
// next. nil is received when signals are not proxied.
func (f *foreground) catchSignals() <-chan *stream.Signals {
	caught := make(chan *stream.Signals, 1)
	go func() {
		if !f.sigProxy {
			caught <- nil
			return
		}
		caught <- stream.CatchSignals()
	}()
	return caught
}

// connect attaches and registers the wait, both at once. The daemon must know
// of both before the container is started.
func (f *foreground) connect(ctx context.Context) (*stream.Attached, *client.Waiter, error) {
	condition := "next-exit"
	if f.removed {
		condition = "removed"
	}
	var waiter *client.Waiter
	waited := make(chan error, 1)
	go func() {
		var err error
		waiter, err = f.client.ContainerWait(ctx, f.id, condition)
		waited <- err
	}()
	var attached *stream.Attached
	var err error
	if f.stdin || f.stdout || f.stderr {
		attached, err = f.attach(ctx)
	}
	if werr := <-waited; err == nil && werr != nil {
		if attached != nil {
			attached.Stream.Close()
		}
		err = werr
	} else if err != nil && werr == nil {
		waiter.Close()
	}
	return attached, waiter, err
}

func (f *foreground) attach(ctx context.Context) (*stream.Attached, error) {
	conn, err := f.client.ContainerAttach(ctx, f.id, client.AttachOptions{Stdin: f.stdin, Stdout: f.stdout, Stderr: f.stderr, DetachKeys: f.keys})
	if err != nil {
		return nil, err
	}
	a := &stream.Attached{Stream: conn, TTY: f.tty, DetachKeys: f.watched}
	pick(&a.In, f.session.In, f.stdin)
	pick(&a.Out, f.session.Out, f.stdout)
	if !f.tty {
		pick(&a.Err, f.session.Err, f.stderr)
	} else if !f.stdout {
		pick(&a.Out, f.session.Err, f.stderr)
	}
	return a, nil
}

// pick sets a stream that is wanted; the others stay nil interfaces.
func pick[T any](to *T, from T, wanted bool) {
	if wanted {
		*to = from
	}
}

func usageError(err error) error {
	return &command.Exit{Code: 125, Err: command.WithHelp(err, "run")}
}

// runError is an error of the engine. As in Docker its text decides the code,
// as that of a start does.
func runError(err error) error { return startError(err) }

// startError is an error of the start. The code tells a command that was not
// found, 127, and one that cannot be executed, 126, from the engine's own 125.
func startError(err error) error {
	if exit, ok := errors.AsType[*command.Exit](err); ok {
		return exit // the user has ended it
	}
	code, text := 125, err.Error()
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		code = 127
	case strings.Contains(text, "permission denied"), strings.Contains(text, "is a directory"):
		code = 126
	}
	return &command.Exit{Code: code, Err: command.WithHelp(err, "run")}
}

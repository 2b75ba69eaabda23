package container

import (
	"context"
	"errors"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/cli/stream"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Attach is the command attach.
func Attach() *command.Command {
	f := command.NewFlags()
	o := &attach{}
	f.StringVar(&o.detachKeys, "detach-keys", "", option.DetachKeys)
	f.BoolVar(&o.noStdin, "no-stdin", false, "Do not attach STDIN")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	return &command.Command{Usage: "[OPTIONS] CONTAINER", MinArgs: 1, MaxArgs: 1, Flags: f,
		Example: "tare attach --no-stdin web", Run: o.run}
}

type attach struct {
	noStdin, sigProxy bool
	detachKeys        string
}

func (o *attach) run(ctx context.Context, s *command.Session, args []string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	state, err := cl.ContainerInspect(ctx, args[0])
	if err != nil {
		return err
	}
	switch {
	case state.State.Paused:
		return fault.New(fault.Conflict, "cannot attach to a paused container, unpause it first")
	case state.State.Restarting:
		return fault.New(fault.Conflict, "cannot attach to a restarting container, wait until it is running")
	case !state.State.Running:
		return fault.New(fault.Conflict, "You cannot attach to a stopped container, start it first")
	}
	stdin := !o.noStdin && state.Config.OpenStdin
	if err := stream.CheckInput(s.In, stdin, state.Config.Tty); err != nil {
		return err
	}
	keys := o.detachKeys
	if keys == "" {
		keys = s.Config().DetachKeys
	}
	watched, err := stream.ParseKeys(keys)
	if err != nil {
		return err
	}
	f := foreground{session: s, client: cl, id: state.Id, tty: state.Config.Tty, keys: keys, watched: watched,
		stdin: stdin, stdout: true, stderr: true}
	return f.join(ctx, o.sigProxy && !state.Config.Tty)
}

// errDetached is told when the user has left a process alone: in Docker attach
// and exec fail by it, unlike run.
var errDetached = errors.New("read escape sequence")

// lastOutput is how long the output of a container that has ended may take, if
// it was attached to in time.
const lastOutput = 500 * time.Millisecond

// join attaches to a container that is running and takes over its exit code.
func (f *foreground) join(ctx context.Context, sigProxy bool) error {
	waiter, err := f.client.ContainerWait(ctx, f.id, "not-running")
	if err != nil {
		return err
	}
	defer waiter.Close()
	attached, err := f.attach(ctx)
	if err != nil {
		return err
	}
	// It may have ended before it was attached to: the daemon holds such an
	// attachment ready for the next start.
	if state, err := f.client.ContainerInspect(ctx, f.id); err != nil || !state.State.Running {
		last, cancel := context.WithTimeout(ctx, lastOutput)
		defer cancel()
		attached.In = nil
		attached.Run(last)
		return exitCode(ctx, waiter)
	}
	if sigProxy {
		signals := stream.CatchSignals()
		go signals.Forward(ctx, f.kill, f.giveUp)
	}
	restore := func() {}
	if f.tty {
		if f.stdin {
			if restore, err = stream.Raw(f.session.In); err != nil {
				return err
			}
			defer restore()
		}
		f.redraw(ctx)
		go stream.FollowSize(f.session.Out, func(h, w uint) { f.client.ContainerResize(ctx, f.id, h, w) })
	}
	detached, err := attached.Run(ctx)
	restore()
	if detached {
		return errDetached
	}
	if err != nil {
		return err
	}
	return exitCode(ctx, waiter)
}

// redraw makes a program in the terminal draw itself again: it gets a change of
// size even when the size is the same as before.
func (f *foreground) redraw(ctx context.Context) {
	if h, w := stream.Size(f.session.Out); h > 0 && w > 0 {
		f.client.ContainerResize(ctx, f.id, h+1, w+1)
	}
}

func exitCode(ctx context.Context, w *client.Waiter) error {
	code, err := w.Code(ctx)
	if err != nil {
		return err
	}
	if code != 0 {
		return &command.Exit{Code: code}
	}
	return nil
}

package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/cli/stream"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Start is the command start.
func Start() *command.Command {
	f := command.NewFlags()
	o := &start{}
	f.BoolVarP(&o.attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	f.BoolVarP(&o.stdin, "interactive", "i", false, "Attach container's STDIN")
	f.StringVar(&o.detachKeys, "detach-keys", "", option.DetachKeys)
	f.StringVar(&o.checkpoint, "checkpoint", "", "Restore from this checkpoint")
	f.StringVar(&o.checkpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	f.BoolVar(&o.lazy, "lazy-pages", false, "Go on at once, with memory of the checkpoint read when it is touched")
	return &command.Command{Usage: "[OPTIONS] CONTAINER [CONTAINER...]", MinArgs: 1, MaxArgs: -1, Flags: f,
		Example: "tare start -ai web", Run: o.run}
}

type start struct {
	attach, stdin, lazy                   bool
	detachKeys, checkpoint, checkpointDir string
}

func (o *start) run(ctx context.Context, s *command.Session, args []string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	if o.lazy && o.checkpoint == "" {
		return fault.New(fault.Invalid, "--lazy-pages is for a start from a checkpoint: name it with --checkpoint")
	}
	if o.checkpoint != "" || o.checkpointDir != "" {
		if len(args) > 1 {
			return fault.New(fault.Invalid, "you cannot restore multiple containers at once")
		}
		if !o.attach && !o.stdin {
			return cl.ContainerStartFrom(ctx, args[0], o.checkpoint, o.checkpointDir, o.lazy)
		}
	}
	if !o.attach && !o.stdin {
		return startEach(ctx, s, cl, args)
	}
	if len(args) > 1 {
		return fault.New(fault.Invalid, "you cannot start and attach multiple containers at once")
	}
	keys := o.detachKeys
	if keys == "" {
		keys = s.Config().DetachKeys
	}
	watched, err := stream.ParseKeys(keys)
	if err != nil {
		return err
	}
	state, err := cl.ContainerInspect(ctx, args[0])
	if err != nil {
		return err
	}
	stdin := o.stdin && state.Config.OpenStdin
	f := foreground{session: s, client: cl, id: state.Id, tty: state.Config.Tty, removed: false, keys: keys, watched: watched,
		sigProxy: !state.Config.Tty, checkpoint: o.checkpoint, checkpointDir: o.checkpointDir, lazy: o.lazy, stdin: stdin, stdout: true, stderr: true}
	err = f.run(ctx)
	// What went wrong is told without the hint about run.
	var exit *command.Exit
	if errors.As(err, &exit) && exit.Err != nil {
		if inner := errors.Unwrap(exit.Err); inner != nil {
			return inner
		}
	}
	return err
}

func startEach(ctx context.Context, s *command.Session, cl *client.Client, names []string) error {
	var failed []string
	for _, name := range names {
		if err := cl.ContainerStart(ctx, name, ""); err != nil {
			fmt.Fprintln(s.Err, err)
			failed = append(failed, name)
			continue
		}
		fmt.Fprintln(s.Out, name)
	}
	if len(failed) > 0 {
		return errors.New("Error: failed to start containers: " + strings.Join(failed, ", "))
	}
	return nil
}

package container

import (
	"context"
	"fmt"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
)

// Stop is the command stop.
func Stop() *command.Command { return stopping("tare stop -t 30 web", (*client.Client).ContainerStop) }

// Restart is the command restart.
func Restart() *command.Command {
	return stopping("tare restart web", (*client.Client).ContainerRestart)
}

// stopping is what stop and restart have in common.
func stopping(example string, call func(*client.Client, context.Context, string, client.StopOptions) error) *command.Command {
	f := command.NewFlags()
	var o client.StopOptions
	var timeout int
	f.StringVarP(&o.Signal, "signal", "s", "", "Signal to send to the container")
	f.IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	f.IntVar(&timeout, "time", 0, "Seconds to wait before killing the container")
	f.MarkHidden("time")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER [CONTAINER...]", MinArgs: 1, MaxArgs: -1, Flags: f, Example: example,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			if f.Changed("timeout") || f.Changed("time") {
				o.Timeout = &timeout
			}
			return forEach(s, args, func(cl *client.Client, name string) error { return call(cl, ctx, name, o) })
		},
	}
}

// forEach acts on all containers at the same time and prints the names of those
// that it succeeded on.
func forEach(s *command.Session, names []string, act func(cl *client.Client, name string) error) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	return command.Together(names, func(name string) error { return act(cl, name) }, func(name string) error {
		_, err := fmt.Fprintln(s.Out, name)
		return err
	})
}

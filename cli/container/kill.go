package container

import (
	"context"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
)

// Kill is the command kill.
func Kill() *command.Command {
	f := command.NewFlags()
	var signal string
	f.StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER [CONTAINER...]", MinArgs: 1, MaxArgs: -1, Flags: f, Example: "tare kill -s HUP web",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			return forEach(s, args, func(cl *client.Client, name string) error { return cl.ContainerKill(ctx, name, signal) })
		},
	}
}

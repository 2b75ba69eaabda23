package network

import (
	"context"

	"github.com/tarehq/tare/cli/command"
)

// Disconnect is the command network disconnect.
func Disconnect() *command.Command {
	f := command.NewFlags()
	force := f.BoolP("force", "f", false, "Force the container to disconnect from a network")
	return &command.Command{
		Usage: "[OPTIONS] NETWORK CONTAINER", MinArgs: 2, MaxArgs: 2, Flags: f, Example: "tare network disconnect backend web",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return cl.NetworkDisconnect(ctx, args[0], args[1], *force)
		},
	}
}

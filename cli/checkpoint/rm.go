package checkpoint

import (
	"context"

	"github.com/tarehq/tare/cli/command"
)

// Rm is the command checkpoint rm.
func Rm() *command.Command {
	f := command.NewFlags()
	dir := f.String("checkpoint-dir", "", dirUsage)
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER CHECKPOINT", MinArgs: 2, MaxArgs: 2, Flags: f, Example: "tare checkpoint rm web before-upgrade",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return cl.CheckpointRemove(ctx, args[0], *dir, args[1])
		},
	}
}

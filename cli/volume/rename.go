package volume

import (
	"context"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
)

// Rename is the command volume rename.
func Rename() *command.Command {
	return &command.Command{
		Usage: "VOLUME NEW_NAME", MinArgs: 2, MaxArgs: 2, Flags: command.NewFlags(),
		Long: "Rename a volume that no container uses, running or not",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			return copied(ctx, s, func(ctx context.Context, cl *client.Client) (client.Volume, error) {
				return cl.VolumeRename(ctx, args[0], args[1])
			})
		},
	}
}

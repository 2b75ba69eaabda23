// Package checkpoint holds the commands about checkpoints, one operation per file.
package checkpoint

import (
	"context"
	"fmt"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
)

const dirUsage = "Use a custom checkpoint storage directory"

// Create is the command checkpoint create.
func Create() *command.Command {
	f := command.NewFlags()
	dir := f.String("checkpoint-dir", "", dirUsage)
	leave := f.Bool("leave-running", false, "Leave the container running after checkpoint")
	pre := f.Bool("pre-dump", false, "Write the memory first, while the container goes on")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER CHECKPOINT", MinArgs: 2, MaxArgs: 2, Flags: f, Example: "tare checkpoint create web before-upgrade",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			req := client.CheckpointCreateRequest{CheckpointID: args[1], CheckpointDir: *dir, Exit: !*leave, PreDump: *pre}
			if err := cl.CheckpointCreate(ctx, args[0], req); err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.Out, args[1])
			return err
		},
	}
}

package container

import (
	"context"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
)

// Pause is the command pause.
func Pause() *command.Command { return pausing((*client.Client).ContainerPause) }

// Unpause is the command unpause.
func Unpause() *command.Command { return pausing((*client.Client).ContainerUnpause) }

// pausing is what pause and unpause have in common.
func pausing(call func(*client.Client, context.Context, string) error) *command.Command {
	return &command.Command{
		Usage: "CONTAINER [CONTAINER...]", MinArgs: 1, MaxArgs: -1, Flags: command.NewFlags(),
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			return forEach(s, args, func(cl *client.Client, name string) error { return call(cl, ctx, name) })
		},
	}
}

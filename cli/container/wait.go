package container

import (
	"context"
	"fmt"

	"github.com/tarehq/tare/cli/command"
)

// Wait is the command wait.
func Wait() *command.Command {
	return &command.Command{
		Usage: "CONTAINER [CONTAINER...]", MinArgs: 1, MaxArgs: -1, Flags: command.NewFlags(),
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				waiter, err := cl.ContainerWait(ctx, name, "")
				if err != nil {
					return err
				}
				code, err := waiter.Code(ctx)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(s.Out, code)
				return err
			})
		},
	}
}

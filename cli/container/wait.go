package container

import (
	"context"
	"fmt"
	"sync"

	"github.com/tarehq/tare/cli/command"
)

// Wait is the command wait.
func Wait() *command.Command {
	return &command.Command{
		Usage: "CONTAINER [CONTAINER...]", MinArgs: 1, MaxArgs: -1, Flags: command.NewFlags(), Example: "tare wait web db",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			// All at once: one may be gone when its turn comes.
			var codes sync.Map
			return command.Together(args, func(name string) error {
				waiter, err := cl.ContainerWait(ctx, name, "")
				if err != nil {
					return err
				}
				defer waiter.Close()
				code, err := waiter.Code(ctx)
				codes.Store(name, code)
				return err
			}, func(name string) error {
				code, _ := codes.Load(name)
				_, err := fmt.Fprintln(s.Out, code)
				return err
			})
		},
	}
}

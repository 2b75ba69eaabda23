package network

import (
	"context"
	"errors"
	"fmt"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
)

// Rm is the command network rm.
func Rm() *command.Command {
	f := command.NewFlags()
	force := f.BoolP("force", "f", false, "Do not error if the network does not exist")
	return &command.Command{
		Usage: "NETWORK [NETWORK...]", MinArgs: 1, MaxArgs: -1, Flags: f, Example: "tare network rm backend",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				err := cl.NetworkRemove(ctx, name)
				if *force && errors.Is(err, fault.NotFound) {
					return nil
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(s.Out, name)
				return err
			})
		},
	}
}

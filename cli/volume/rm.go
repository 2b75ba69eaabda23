package volume

import (
	"context"
	"fmt"

	"github.com/tarehq/tare/cli/command"
)

// Rm is the command volume rm.
func Rm() *command.Command {
	f := command.NewFlags()
	force := f.BoolP("force", "f", false, "Force the removal of one or more volumes")
	return &command.Command{
		Usage: "[OPTIONS] VOLUME [VOLUME...]", MinArgs: 1, MaxArgs: -1, Flags: f, Example: "tare volume rm data",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				if err := cl.VolumeRemove(ctx, name, *force); err != nil {
					return err
				}
				_, err := fmt.Fprintln(s.Out, name)
				return err
			})
		},
	}
}

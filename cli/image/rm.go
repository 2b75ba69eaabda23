package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
)

// Rm is the command image rm, or rmi.
func Rm() *command.Command {
	f := command.NewFlags()
	var force, noPrune bool
	var platforms []string
	f.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	f.BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	f.StringSliceVar(&platforms, "platform", nil, "Remove only the given platform variant (os[/arch[/variant]])")
	return &command.Command{
		Usage: "[OPTIONS] IMAGE [IMAGE...]", MinArgs: 1, MaxArgs: -1, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				removed, err := cl.ImageRemove(ctx, name, force, noPrune, platforms)
				if force && errors.Is(err, fault.NotFound) {
					fmt.Fprintln(s.Err, err)
					return nil
				}
				for _, r := range removed {
					if r.Deleted != "" {
						fmt.Fprintf(s.Out, "Deleted: %s\n", r.Deleted)
					} else {
						fmt.Fprintf(s.Out, "Untagged: %s\n", r.Untagged)
					}
				}
				return err
			})
		},
	}
}

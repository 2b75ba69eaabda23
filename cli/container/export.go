package container

import (
	"context"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
)

// Export is the command export.
func Export() *command.Command {
	f := command.NewFlags()
	var output string
	f.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER", MinArgs: 1, MaxArgs: 1, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			if _, ok := command.Terminal(s.Out); ok && output == "" {
				return fault.New(fault.Invalid, "cowardly refusing to export to a terminal. Use the -o flag or redirect")
			}
			if err := command.CheckOutput(output); err != nil {
				return fault.New(fault.Invalid, "failed to export container: %w", err)
			}
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return command.Interruptible(ctx, func(ctx context.Context) error {
				body, err := cl.ContainerExport(ctx, args[0])
				if err != nil {
					return err
				}
				defer body.Close()
				return command.WriteOutput(s.Out, output, body)
			})
		},
	}
}

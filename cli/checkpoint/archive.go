package checkpoint

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
)

// Export is the command checkpoint export.
func Export() *command.Command {
	f := command.NewFlags()
	dir := f.String("checkpoint-dir", "", dirUsage)
	output := f.StringP("output", "o", "", "Write to a file, instead of STDOUT")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER CHECKPOINT", MinArgs: 2, MaxArgs: 2, Flags: f, Example: "tare checkpoint export -o web.tar web before-upgrade",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			if _, ok := command.Terminal(s.Out); ok && *output == "" {
				return fault.New(fault.Invalid, "cowardly refusing to export to a terminal. Use the -o flag or redirect")
			}
			if err := command.CheckOutput(*output); err != nil {
				return fault.New(fault.Invalid, "failed to export the checkpoint: %w", err)
			}
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return command.Interruptible(ctx, func(ctx context.Context) error {
				body, err := cl.CheckpointExport(ctx, args[0], *dir, args[1])
				if err != nil {
					return err
				}
				defer body.Close()
				return command.WriteOutput(s.Out, *output, body)
			})
		},
	}
}

// Import is the command checkpoint import.
func Import() *command.Command {
	f := command.NewFlags()
	input := f.StringP("input", "i", "", "Read from a file, instead of STDIN")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER CHECKPOINT", MinArgs: 2, MaxArgs: 2, Flags: f,
		Example: "tare create --name web2 web && tare checkpoint import -i web.tar web2 before-upgrade",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			var in io.Reader = s.In
			if *input != "" {
				file, err := os.Open(*input)
				if err != nil {
					return fault.New(fault.Invalid, "open %s: %w", *input, err)
				}
				defer file.Close()
				in = file
			}
			cl, err := s.Client()
			if err != nil {
				return err
			}
			if err := cl.CheckpointImport(ctx, args[0], args[1], in); err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.Out, args[1])
			return err
		},
	}
}

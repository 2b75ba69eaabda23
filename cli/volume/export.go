package volume

import (
	"context"
	"io"
	"os"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Export is the command volume export.
func Export() *command.Command {
	f := command.NewFlags()
	var output string
	f.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	freeze := f.Bool("freeze", false, freezeUsage)
	return &command.Command{
		Usage: "[OPTIONS] VOLUME", MinArgs: 1, MaxArgs: 1, Flags: f, Example: "tare volume export -o data.tar data",
		Long: "Write the content of a volume as a tar archive",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			if _, ok := command.Terminal(s.Out); ok && output == "" {
				return fault.New(fault.Invalid, "cowardly refusing to export to a terminal. Use the -o flag or redirect")
			}
			if err := command.CheckOutput(output); err != nil {
				return fault.New(fault.Invalid, "failed to export volume: %w", err)
			}
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return command.Interruptible(ctx, func(ctx context.Context) error {
				body, err := cl.VolumeExport(ctx, args[0], *freeze)
				if err != nil {
					return err
				}
				defer body.Close()
				return command.WriteOutput(s.Out, output, body)
			})
		},
	}
}

// Import is the command volume import.
func Import() *command.Command {
	f := command.NewFlags()
	labels := option.NewList(f, "label", "", "Set metadata for the volume", nil)
	options := option.NewList(f, "opt", "o", "Set driver specific options: size", nil)
	return &command.Command{
		Usage: "[OPTIONS] VOLUME [FILE|-]", MinArgs: 1, MaxArgs: 2, Flags: f, Example: "tare volume import data data.tar",
		Long: "Make a volume of a tar archive, compressed or not, from a file or STDIN",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			in := io.Reader(s.In)
			if len(args) > 1 && args[1] != "-" {
				file, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			} else if _, ok := command.Terminal(s.In); ok {
				return fault.New(fault.Invalid, "there is no archive on STDIN: name a file, or redirect one")
			}
			return copied(ctx, s, func(ctx context.Context, cl *client.Client) (client.Volume, error) {
				return cl.VolumeImport(ctx, args[0], client.VolumeImportOptions{Labels: labels.Map(), Options: options.Map()}, in)
			})
		},
	}
}

package image

import (
	"context"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Save is the command save.
func Save() *command.Command {
	f := command.NewFlags()
	var output string
	var platforms []string
	f.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	f.StringSliceVar(&platforms, "platform", nil, "Save only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	compression := newCompression(f)
	return &command.Command{
		Usage: "[OPTIONS] IMAGE [IMAGE...]", MinArgs: 1, MaxArgs: -1, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			packed, err := compression.check()
			if err != nil {
				return err
			}
			if err := checkPlatforms(platforms); err != nil {
				return err
			}
			cl, err := s.Client()
			if err != nil {
				return err
			}
			if _, ok := command.Terminal(s.Out); ok && output == "" {
				return fault.New(fault.Invalid, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
			}
			if err := command.CheckOutput(output); err != nil {
				return fault.New(fault.Invalid, "failed to save image: %w", err)
			}
			return command.Interruptible(ctx, func(ctx context.Context) error {
				body, err := cl.ImageSave(ctx, args, client.SaveOptions{Platforms: platforms, Compression: packed})
				if err != nil {
					return err
				}
				defer body.Close()
				m := newMeter(body, s.Err, "Saving", 0)
				defer m.done()
				return command.WriteOutput(s.Out, output, m)
			})
		},
	}
}

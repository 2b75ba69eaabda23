package image

import (
	"context"
	"os"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/progress"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Load is the command load.
func Load() *command.Command {
	f := command.NewFlags()
	var input string
	var quiet bool
	var platforms []string
	f.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	f.StringSliceVar(&platforms, "platform", nil, "Load only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	return &command.Command{
		Usage: "[OPTIONS]", Flags: f,
		Run: func(ctx context.Context, s *command.Session, _ []string) error {
			if err := checkPlatforms(platforms); err != nil {
				return err
			}
			cl, err := s.Client()
			if err != nil {
				return err
			}
			in, size := s.In, int64(0)
			if input != "" {
				file, err := os.Open(input)
				if err != nil {
					return err
				}
				defer file.Close()
				if info, err := file.Stat(); err == nil {
					size = info.Size()
				}
				in = file
			} else if _, ok := command.Terminal(s.In); ok {
				return fault.New(fault.Invalid, "requested load from stdin, but stdin is empty")
			}
			m := newMeter(in, s.Err, "Loading", size)
			return progress.Follow(ctx, s.Out, false, func(ctx context.Context, each func(client.Progress) error) error {
				defer m.done()
				return cl.ImageLoad(ctx, m, quiet, platforms, func(p client.Progress) error {
					m.done()
					return each(p)
				})
			})
		},
	}
}

package image

import (
	"context"
	"io"
	"os"

	"github.com/tarehq/tare/cli/command"
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
	f.StringSliceVar(&platforms, "platform", nil, "Load only the given platform variant (os[/arch[/variant]])")
	return &command.Command{
		Usage: "[OPTIONS]", Flags: f,
		Run: func(ctx context.Context, s *command.Session, _ []string) error {
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
			err = cl.ImageLoad(ctx, m, quiet, platforms, func(p client.Progress) error {
				m.done()
				_, err := io.WriteString(s.Out, p.Stream)
				return err
			})
			if err != nil {
				m.done()
			}
			return err
		},
	}
}

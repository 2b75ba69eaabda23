package image

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/cli/progress"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/reference"
)

// Import is the command import.
func Import() *command.Command {
	f := command.NewFlags()
	var o client.ImportOptions
	changes := option.NewList(f, "change", "c", "Apply Dockerfile instruction to the created image", nil)
	f.StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
	f.StringVar(&o.Platform, "platform", "", "Set platform if server is multi-platform capable")
	return &command.Command{
		Usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", MinArgs: 1, MaxArgs: -1, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			o.Changes, o.Platform = changes.Values, s.Platform(o.Platform)
			if len(args) > 1 {
				if _, err := reference.Parse(args[1]); err != nil {
					return err
				}
				o.Repo, o.Tag = splitTag(args[1])
			}
			return runImport(ctx, s, args[0], o)
		},
	}
}

func runImport(ctx context.Context, s *command.Session, source string, o client.ImportOptions) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	var in io.Reader
	o.Source, o.Epoch = "-", s.Getenv("SOURCE_DATE_EPOCH")
	size := int64(0)
	switch {
	case source == "-":
		in = s.In
	case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
		o.Source, in = source, strings.NewReader("")
	default:
		file, err := os.Open(source)
		if err != nil {
			return err
		}
		defer file.Close()
		if info, err := file.Stat(); err == nil {
			size = info.Size()
		}
		in = file
	}
	m := newMeter(in, s.Err, "Importing", size)
	return progress.Follow(ctx, s.Out, false, func(ctx context.Context, each func(client.Progress) error) error {
		defer m.done()
		return cl.ImageImport(ctx, m, o, func(p client.Progress) error {
			m.done()
			return each(p)
		})
	})
}

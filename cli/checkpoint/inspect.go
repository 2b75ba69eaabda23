package checkpoint

import (
	"context"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
)

// Inspect is the command checkpoint inspect.
func Inspect() *command.Command {
	f := command.NewFlags()
	dir := f.String("checkpoint-dir", "", dirUsage)
	format := f.StringP("format", "f", "", option.FormatInspect)
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER CHECKPOINT [CHECKPOINT...]", MinArgs: 2, MaxArgs: -1, Flags: f,
		Example: `tare checkpoint inspect -f "{{.Size}}" web before-upgrade`,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return command.Inspect(s, *format, args[1:], func(name string) ([]byte, error) {
				return cl.CheckpointInspectRaw(ctx, args[0], *dir, name)
			})
		},
	}
}

package checkpoint

import (
	"context"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
)

// Ls is the command checkpoint ls.
func Ls() *command.Command {
	f := command.NewFlags()
	dir := f.String("checkpoint-dir", "", dirUsage)
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER", MinArgs: 1, MaxArgs: 1, Flags: f, Example: "tare checkpoint ls web",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			list, err := cl.CheckpointList(ctx, args[0], *dir)
			if err != nil {
				return err
			}
			rows := make([]any, len(list))
			for i := range list {
				rows[i] = list[i]
			}
			t := format.Table{Columns: map[string]string{"Name": "CHECKPOINT NAME"}, Default: "{{.Name}}", Quiet: "{{.Name}}"}
			return t.Write(s.Out, "", false, rows)
		},
	}
}

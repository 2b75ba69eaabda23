package network

import (
	"context"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
)

// Exposure is the command network exposure.
func Exposure() *command.Command {
	f := command.NewFlags()
	text := f.String("format", "", option.FormatTable)
	return &command.Command{
		Usage: "[OPTIONS]", Flags: f, Example: "tare network exposure",
		Run: func(ctx context.Context, s *command.Session, _ []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			list, err := cl.NetworkExposure(ctx)
			if err != nil {
				return err
			}
			rows := make([]any, len(list))
			for i := range list {
				rows[i] = list[i]
			}
			t := format.Table{
				Columns: map[string]string{"Container": "CONTAINER", "Network": "NETWORK", "At": "AT", "Target": "LEADS TO", "From": "REACHED BY", "Rule": "RULE"},
				Default: "{{.Container}}\t{{.Network}}\t{{.At}}\t{{.Target}}\t{{.From}}\t{{.Rule}}",
				Quiet:   "{{.Container}}",
			}
			return t.Write(s.Out, *text, false, rows)
		},
	}
}

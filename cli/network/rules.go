package network

import (
	"context"

	"github.com/tarehq/tare/cli/command"
)

// Rules is the command network rules.
func Rules() *command.Command {
	return &command.Command{
		Flags: command.NewFlags(), Example: "tare network rules | less",
		Run: func(ctx context.Context, s *command.Session, _ []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			rules, err := cl.NetworkRules(ctx)
			if err == nil {
				_, err = s.Out.Write(rules)
			}
			return err
		},
	}
}

package container

import (
	"context"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
)

// Rename is the command rename.
func Rename() *command.Command {
	return &command.Command{
		Usage: "CONTAINER NEW_NAME", MinArgs: 2, MaxArgs: 2, Flags: command.NewFlags(),
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			old, name := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
			if old == "" || name == "" {
				return fault.New(fault.Invalid, "Error: Neither old nor new names may be empty")
			}
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return cl.ContainerRename(ctx, old, name)
		},
	}
}

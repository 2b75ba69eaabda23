package contexts

import (
	"context"
	"errors"
	"fmt"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/fault"
)

// Rm is the command context rm.
func Rm() *command.Command {
	f := command.NewFlags()
	var force bool
	f.BoolVarP(&force, "force", "f", false, "Force the removal of a context in use")
	return &command.Command{
		Usage: "CONTEXT [CONTEXT...]", MinArgs: 1, MaxArgs: -1, Flags: f,
		Run: func(_ context.Context, s *command.Session, args []string) error {
			current := s.ContextName()
			return command.Each(args, func(name string) error {
				if err := remove(s, name, name == current, force); err != nil {
					return err
				}
				_, err := fmt.Fprintln(s.Out, name)
				return err
			})
		},
	}
}

func remove(s *command.Session, name string, current, force bool) error {
	if name == config.DefaultContext {
		return fault.New(fault.Conflict, "context %q cannot be removed", name)
	}
	if current {
		if !force {
			return fault.New(fault.Conflict, "context %q is in use, set -f flag to force remove", name)
		}
		if s.Config().CurrentContext == name {
			if err := s.Config().Use(""); err != nil {
				return err
			}
		}
	}
	err := config.NewContexts(s.ConfigDir()).Remove(name)
	if force && errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

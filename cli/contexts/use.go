package contexts

import (
	"context"
	"fmt"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
)

// Use is the command context use.
func Use() *command.Command {
	return &command.Command{
		Usage: "CONTEXT", MinArgs: 1, MaxArgs: 1, Flags: command.NewFlags(),
		Run: func(_ context.Context, s *command.Session, args []string) error {
			name := args[0]
			stored := name
			if name == config.DefaultContext {
				stored = ""
			} else if err := check(s, name); err != nil {
				return err
			}
			if err := s.Config().Use(stored); err != nil {
				return err
			}
			if err := told(s, name, "Current context is now %q"); err != nil {
				return err
			}
			if variable, _ := s.HostVariable(); variable != "" && stored != "" {
				fmt.Fprintf(s.Err, "Warning: %s environment variable overrides the active context. To use %q, "+
					"either set the global --context flag, or unset %s environment variable.\n", variable, name, variable)
			}
			return nil
		},
	}
}

// check refuses a name that no stored context has.
func check(s *command.Session, name string) error {
	if err := config.CheckName(name); err != nil {
		return err
	}
	_, err := config.NewContexts(s.ConfigDir()).Get(name)
	return err
}

// Show is the command context show.
func Show() *command.Command {
	return &command.Command{
		Usage: "", Flags: command.NewFlags(),
		Run: func(_ context.Context, s *command.Session, _ []string) error {
			_, err := fmt.Fprintln(s.Out, s.ContextName())
			return err
		},
	}
}

package network

import (
	"context"
	"fmt"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
)

// Prune is the command network prune.
func Prune() *command.Command {
	f := command.NewFlags()
	filter := option.NewPruneFilter(f, "until=<timestamp>")
	force := f.BoolP("force", "f", false, "Do not prompt for confirmation")
	return &command.Command{
		Usage: "[OPTIONS]", Flags: f,
		Run: func(ctx context.Context, s *command.Session, _ []string) error {
			return prune(ctx, s, filter, *force)
		},
	}
}

func prune(ctx context.Context, s *command.Session, filter *option.Filter, force bool) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	if err := filter.Add(s.Config().PruneFilters); err != nil {
		return err
	}
	if !force {
		const question = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?"
		if yes, err := command.Confirm(ctx, s, question); err != nil || !yes {
			return err
		}
	}
	report, err := cl.NetworksPrune(ctx, filter.Filters)
	if err != nil || len(report.NetworksDeleted) == 0 {
		return err
	}
	_, err = fmt.Fprintf(s.Out, "Deleted Networks:\n%s\n\n", strings.Join(report.NetworksDeleted, "\n"))
	return err
}

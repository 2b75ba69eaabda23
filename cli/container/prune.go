package container

import (
	"context"
	"fmt"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
)

// Prune is the command container prune.
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
		const question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?"
		if yes, err := command.Confirm(ctx, s, question); err != nil || !yes {
			return err
		}
	}
	report, err := cl.ContainersPrune(ctx, filter.Filters)
	if err != nil {
		return err
	}
	text := ""
	if len(report.ContainersDeleted) > 0 {
		text = "Deleted Containers:\n" + strings.Join(report.ContainersDeleted, "\n") + "\n\n"
	}
	_, err = fmt.Fprintf(s.Out, "%sTotal reclaimed space: %s\n", text, format.SizeFine(float64(report.SpaceReclaimed)))
	return err
}

package volume

import (
	"context"
	"fmt"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/fault"
)

// Prune is the command volume prune.
func Prune() *command.Command {
	f := command.NewFlags()
	o := &prune{filter: option.NewPruneFilter(f, "label=<label>")}
	f.BoolVarP(&o.all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	f.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	return &command.Command{Usage: "[OPTIONS]", Flags: f, Run: o.run}
}

type prune struct {
	all, force bool
	filter     *option.Filter
}

func (o *prune) run(ctx context.Context, s *command.Session, _ []string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	if err := o.filter.Add(s.Config().PruneFilters); err != nil {
		return err
	}
	which := "anonymous local volumes"
	if o.all {
		if len(o.filter.Filters["all"]) > 0 {
			return fault.New(fault.Invalid, "conflicting options: cannot specify both --all and --filter all=1")
		}
		if err := o.filter.Add([]string{"all=true"}); err != nil {
			return err
		}
		which = "all local volumes"
	}
	if !o.force {
		question := "WARNING! This will remove " + which + " not used by at least one container.\nAre you sure you want to continue?"
		if yes, err := command.Confirm(ctx, s, question); err != nil || !yes {
			return err
		}
	}
	report, err := cl.VolumesPrune(ctx, o.filter.Filters)
	if err != nil {
		return err
	}
	if len(report.VolumesDeleted) > 0 {
		fmt.Fprintf(s.Out, "Deleted Volumes:\n%s\n\n", strings.Join(report.VolumesDeleted, "\n"))
	}
	_, err = fmt.Fprintf(s.Out, "Total reclaimed space: %s\n", format.SizeFine(float64(report.SpaceReclaimed)))
	return err
}

package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

// Prune is the command image prune.
func Prune() *command.Command {
	f := command.NewFlags()
	o := &prune{filter: option.NewPruneFilter(f, "until=<timestamp>")}
	f.BoolVarP(&o.all, "all", "a", false, "Remove all unused images, not just dangling ones")
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
	warning := "WARNING! This will remove all dangling images."
	if o.all {
		warning = "WARNING! This will remove all images without at least one container associated to them."
	}
	if !o.force {
		if yes, err := command.Confirm(ctx, s, warning+"\nAre you sure you want to continue?"); err != nil || !yes {
			return err
		}
	}
	report, err := PruneUnused(ctx, cl, o.all, o.filter.Filters)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.Out, "%sTotal reclaimed space: %s\n", PrunedText(report.ImagesDeleted), format.SizeFine(float64(report.SpaceReclaimed)))
	return err
}

// PruneUnused removes the images that no container uses: all of them, or those
// without a name.
func PruneUnused(ctx context.Context, cl *client.Client, all bool, filters client.Filters) (client.PruneReport, error) {
	f := client.Filters{"dangling": {fmt.Sprint(!all)}}
	for name, values := range filters {
		if name != "dangling" {
			f[name] = append(f[name], values...)
		}
	}
	return cl.ImagesPrune(ctx, f)
}

// PrunedText lists what was removed, with an empty line after it.
func PrunedText(removed []client.ImageDeleted) string {
	if len(removed) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("Deleted Images:\n")
	for _, r := range removed {
		if r.Untagged != "" {
			b.WriteString("untagged: " + r.Untagged + "\n")
		} else {
			b.WriteString("deleted: " + r.Deleted + "\n")
		}
	}
	return b.String() + "\n"
}

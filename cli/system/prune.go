package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/image"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Prune is the command system prune.
func Prune() *command.Command {
	f := command.NewFlags()
	o := &prune{filter: option.NewPruneFilter(f, "label=<key>=<value>")}
	f.BoolVarP(&o.all, "all", "a", false, "Remove all unused images not just dangling ones")
	f.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	f.BoolVar(&o.volumes, "volumes", false, "Prune anonymous volumes")
	return &command.Command{Usage: "[OPTIONS]", Flags: f, Run: o.run}
}

type prune struct {
	all, force, volumes bool
	filter              *option.Filter
}

func (o *prune) run(ctx context.Context, s *command.Session, _ []string) error {
	if o.volumes && len(o.filter.Filters["until"]) > 0 {
		return fault.New(fault.Invalid, `ERROR: The "until" filter is not supported with "--volumes"`)
	}
	cl, err := s.Client()
	if err != nil {
		return err
	}
	if err := o.filter.Add(s.Config().PruneFilters); err != nil {
		return err
	}
	if !o.force {
		if yes, err := command.Confirm(ctx, s, o.warning()); err != nil || !yes {
			return err
		}
	}
	var reclaimed uint64
	for _, step := range o.steps(cl) {
		report, text, err := step.prune(ctx)
		switch {
		case errors.Is(err, fault.NotImplemented):
			// The daemon has no such things: the others can still go.
			fmt.Fprintf(s.Err, "WARNING: %s are left alone: %v\n", step.what, err)
			continue
		case err != nil:
			return err
		}
		reclaimed += report.SpaceReclaimed
		if _, err := io.WriteString(s.Out, text); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(s.Out, "Total reclaimed space: %s\n", format.SizeFine(float64(reclaimed)))
	return err
}

// warning says what will be removed, and asks.
func (o *prune) warning() string {
	lines := []string{"all stopped containers", "all networks not used by at least one container"}
	if o.volumes {
		lines = append(lines, "all anonymous volumes not used by at least one container")
	}
	if o.all {
		lines = append(lines, "all images without at least one container associated to them", "all build cache")
	} else {
		lines = append(lines, "all dangling images", "unused build cache")
	}
	text := "WARNING! This will remove:\n  - " + strings.Join(lines, "\n  - ") + "\n"
	if len(o.filter.Filters) > 0 {
		text += "\n  Items to be pruned will be filtered with:\n"
		for _, name := range slices.Sorted(maps.Keys(o.filter.Filters)) {
			for _, value := range o.filter.Filters[name] {
				text += "  - " + name + "=" + value + "\n"
			}
		}
	}
	return text + "\nAre you sure you want to continue?"
}

// step removes one kind of object and says which.
type step struct {
	what  string
	prune func(ctx context.Context) (client.PruneReport, string, error)
}

// steps are in the order in which one thing frees another.
func (o *prune) steps(cl *client.Client) []step {
	f := o.filter.Filters
	all := []step{{"stopped containers", func(ctx context.Context) (client.PruneReport, string, error) {
		r, err := cl.ContainersPrune(ctx, f)
		return r, removed("Deleted Containers:", r.ContainersDeleted), err
	}}, {"unused networks", func(ctx context.Context) (client.PruneReport, string, error) {
		r, err := cl.NetworksPrune(ctx, f)
		return r, removed("Deleted Networks:", r.NetworksDeleted), err
	}}}
	if o.volumes {
		all = append(all, step{"unused volumes", func(ctx context.Context) (client.PruneReport, string, error) {
			r, err := cl.VolumesPrune(ctx, f)
			return r, removed("Deleted Volumes:", r.VolumesDeleted), err
		}})
	}
	return append(all, step{"unused images", func(ctx context.Context) (client.PruneReport, string, error) {
		r, err := image.PruneUnused(ctx, cl, o.all, f)
		return r, image.PrunedText(r.ImagesDeleted), err
	}}, step{"build caches", func(ctx context.Context) (client.PruneReport, string, error) {
		r, err := cl.BuildPrune(ctx, o.all, f)
		return r, removed("Deleted build cache objects:", r.CachesDeleted), err
	}})
}

func removed(title string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return title + "\n" + strings.Join(names, "\n") + "\n\n"
}

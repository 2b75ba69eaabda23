package listing

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/healthcheck"
	"github.com/tarehq/tare/container/record"
)

// Options as in GET /containers/json.
type Options struct {
	All     bool // also those that do not run
	Limit   int  // the newest so many, running or not; 0 for all
	Size    bool
	Filters map[string]map[string]bool
}

// List shows the containers that the options include, newest first.
func (s *Listing) List(ctx context.Context, o Options) ([]wire.Summary, error) {
	records, err := s.listed(o)
	if err != nil {
		return nil, err
	}
	list := make([]wire.Summary, 0, len(records))
	for _, r := range records {
		item, err := s.summary(ctx, *r, o.Size)
		if err != nil {
			if _, gone := s.Store.Find(r.ID); gone != nil { // removed meanwhile
				continue
			}
			return nil, err
		}
		list = append(list, item)
	}
	return list, nil
}

// listed chooses the containers of a list.
func (s *Listing) listed(o Options) ([]*record.Record, error) {
	keep, err := filter(s.withNetworkNames(o.Filters), s.Store.Find, s.Images.ID)
	if err != nil {
		return nil, err
	}
	all := o.All || o.Limit > 0 || len(o.Filters["status"]) > 0
	list := slices.DeleteFunc(s.Store.Sorted(), func(r *record.Record) bool { return !all && !r.State.Live() || !keep(*r) })
	if o.Limit > 0 && len(list) > o.Limit {
		list = list[:o.Limit]
	}
	return list, nil
}

// withNetworkNames adds to a filter's networks the names of those that were named
// by their IDs.
func (s *Listing) withNetworkNames(filters map[string]map[string]bool) map[string]map[string]bool {
	asked := filters["network"]
	if len(asked) == 0 {
		return filters
	}
	filters, named := maps.Clone(filters), maps.Clone(asked)
	for v := range asked {
		if n, err := s.Networks.Lookup(v); err == nil {
			named[n.Name] = true
		}
	}
	filters["network"] = named
	return filters
}

func (s *Listing) summary(ctx context.Context, r record.Record, size bool) (wire.Summary, error) {
	manifest := r.Image.Manifest
	item := wire.Summary{
		ID: r.ID, Names: s.shownNames(&r), Image: s.imageName(r), ImageID: r.Image.ID.String(),
		ImageManifestDescriptor: &manifest, Command: command(r), Created: r.Created.Unix(), Ports: portSummaries(r),
		Labels: r.Config.Labels, State: r.State.Wire(), Status: status(r),
		NetworkSettings: &wire.NetworkSettingsSummary{Networks: s.endpoints(r)}, Mounts: r.MountPoints(),
		Health: &wire.HealthSummary{Status: healthcheck.Status(r.Health)},
	}
	if r.Health != nil {
		item.Health.FailingStreak = r.Health.FailingStreak
	}
	item.HostConfig.NetworkMode = string(r.HostConfig.NetworkMode)
	item.HostConfig.Annotations = r.HostConfig.Annotations
	if !size {
		return item, nil
	}
	var err error
	item.SizeRw, item.SizeRootFs, err = s.Layers.Usage(ctx, r.ID)
	return item, err
}

// shownNames are its own and those that others link it by.
func (s *Listing) shownNames(r *record.Record) []string {
	return append([]string{"/" + r.Name}, s.Links.Names(r.ID)...)
}

// imageName is the name that the container was made with as long as it means
// the container's image, and the image's ID afterwards.
func (s *Listing) imageName(r record.Record) string {
	if s.Images.ID(r.Config.Image) != r.Image.ID {
		return r.Image.ID.String()
	}
	return r.Config.Image
}

func command(r record.Record) string {
	words := []string{r.Path}
	for _, a := range r.Args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// status is the sentence of the column STATUS.
func status(r record.Record) string {
	ago := func(t time.Time) string { return units.HumanDuration(time.Since(t)) }
	switch r.State {
	case record.Running:
		switch health := healthcheck.Status(r.Health); health {
		case wire.NoHealthcheck:
			return "Up " + ago(r.StartedAt)
		case wire.Starting:
			return "Up " + ago(r.StartedAt) + " (health: starting)"
		default:
			return fmt.Sprintf("Up %s (%s)", ago(r.StartedAt), health)
		}
	case record.Paused:
		return "Up " + ago(r.StartedAt) + " (Paused)"
	case record.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", r.ExitCode, ago(r.FinishedAt))
	case record.Exited:
		if r.FinishedAt.IsZero() {
			return fmt.Sprintf("Exited (%d)", r.ExitCode)
		}
		return fmt.Sprintf("Exited (%d) %s ago", r.ExitCode, ago(r.FinishedAt))
	}
	return "Created"
}

// Counts tells how many containers are in which of Docker's three classes.
func (s *Listing) Counts() (running, paused, stopped int) {
	for _, r := range s.Store.All() {
		switch {
		case r.State == record.Paused:
			paused++
		case r.State.Live():
			running++
		default:
			stopped++
		}
	}
	return running, paused, stopped
}

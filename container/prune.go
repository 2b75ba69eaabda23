package container

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/internal/label"
)

// Pruning removes the containers that do not run, one call at a time.
type Pruning struct {
	containers *Service
	under      atomic.Bool
}

// Prune removes the containers that do not run and that the filters until,
// label and label! choose, and tells what of space that gives back, in bytes:
// what the containers had changed. One that begins to run meanwhile stays.
func (p *Pruning) Prune(ctx context.Context, filters map[string]map[string]bool) (wire.PruneReport, error) {
	report := wire.PruneReport{}
	wanted, err := prunable(filters)
	if err != nil {
		return report, err
	}
	if !p.under.CompareAndSwap(false, true) {
		return report, fault.New(fault.Conflict, "a prune operation is already running")
	}
	defer p.under.Store(false)
	s := p.containers
	for _, r := range s.store.All() {
		if ctx.Err() != nil {
			break // what is gone is told
		}
		if r.State.Live() || !wanted(r) {
			continue
		}
		size, _, err := s.cfg.Snapshots.Usage(ctx, r.ID)
		if err == nil {
			err = s.Remove(ctx, r.ID, RemoveOptions{})
		}
		switch {
		case errors.Is(err, fault.NotFound): // removed meanwhile
		case err != nil:
			s.cfg.Log.Warn("a container is not pruned", "container", r.ID, "err", err)
		default:
			report.ContainersDeleted = append(report.ContainersDeleted, r.ID)
			report.SpaceReclaimed += uint64(size)
		}
	}
	s.cfg.Events.Publish(events.ContainerEventType, events.ActionPrune,
		events.Actor{Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)}})
	return report, nil
}

// prunable makes the filters one test. A container must have all labels of
// label, and is spared when it has all of label!.
func prunable(filters map[string]map[string]bool) (func(Record) bool, error) {
	var until time.Time
	for name, values := range filters {
		switch {
		case name != "until" && name != "label" && name != "label!":
			return nil, fault.New(fault.Invalid, "invalid filter '%s'", name)
		case name == "until" && len(values) > 1:
			return nil, fault.New(fault.Invalid, "more than one until filter specified")
		case name == "until":
			for v := range values {
				var err error
				if until, err = inventory.ParseTime(v); err != nil {
					return nil, err
				}
			}
		}
	}
	hasAll := func(r Record, labels map[string]bool) bool {
		for l := range labels {
			if !label.Has(r.Config.Labels, l) {
				return false
			}
		}
		return true
	}
	return func(r Record) bool {
		return (until.IsZero() || !r.Created.After(until)) && hasAll(r, filters["label"]) && (len(filters["label!"]) == 0 || !hasAll(r, filters["label!"]))
	}, nil
}

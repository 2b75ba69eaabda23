package volume

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/fault"
)

// Prune removes the volumes that no container uses, of the local driver without
// options: of those without a name of their own, or with the filter all of all of
// them. The filters label and label! choose among them.
func (s *Service) Prune(ctx context.Context, wanted map[string]map[string]bool) (wire.PruneReport, error) {
	report := wire.PruneReport{VolumesDeleted: []string{}}
	f := filters(wanted)
	if err := f.check("all", "label", "label!"); err != nil {
		return report, err
	}
	all, _, err := f.boolean("all")
	if err != nil {
		return report, err
	}
	if !s.pruning.TryLock() {
		return report, fault.New(fault.Conflict, "a prune operation is already running")
	}
	defer s.pruning.Unlock()
	users := s.usersOf()
	list := s.all()
	slices.SortFunc(list, func(a, b Record) int { return cmp.Compare(a.Name, b.Name) })
	for _, r := range list {
		if r.Driver != Local || len(r.Options) > 0 || len(users[r.Name]) > 0 || !all && !r.Anonymous() {
			continue
		}
		if !f.fit(r.Name, r.Driver, r.Labels) {
			continue
		}
		if ctx.Err() != nil { // what was removed is told of
			break
		}
		freed, gone := s.pruneOne(ctx, r)
		if gone {
			report.VolumesDeleted = append(report.VolumesDeleted, r.Name)
			report.SpaceReclaimed += uint64(freed)
		}
	}
	s.events.Publish(events.VolumeEventType, events.ActionPrune,
		events.Actor{Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)}})
	return report, nil
}

// pruneOne removes a volume, if it is still the one and nobody has begun to use it.
func (s *Service) pruneOne(ctx context.Context, r Record) (freed int64, gone bool) {
	unlock, err := s.ops.Lock(ctx, r.Name)
	if err != nil {
		return 0, false
	}
	defer unlock()
	if now, there := s.lookup(r.Name); !there || !now.Created.Equal(r.Created) || !maps.Equal(now.Labels, r.Labels) {
		return 0, false
	}
	freed, err = sizeOf(ctx, s.data(r.Name))
	if err != nil {
		s.log.Warn("the size of a volume cannot be told", "volume", r.Name, "err", err)
	}
	if err := s.removeLocked(ctx, r, false); err != nil {
		s.log.Warn("a volume cannot be pruned", "volume", r.Name, "err", err)
		return 0, false
	}
	return max(freed, 0), true
}

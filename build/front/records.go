package front

import (
	"context"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/keep"
)

// DiskUsage lists the cache.
func (c *control) DiskUsage(ctx context.Context, r *controlapi.DiskUsageRequest) (*controlapi.DiskUsageResponse, error) {
	match, err := build.ParseFilters(r.Filter)
	if err != nil {
		return nil, err
	}
	list, err := c.solver.Usage(ctx)
	if err != nil {
		return nil, err
	}
	resp := &controlapi.DiskUsageResponse{}
	for _, u := range list {
		if match(u) && time.Since(u.LastUsed) >= time.Duration(r.AgeLimit) {
			resp.Record = append(resp.Record, usageRecord(u))
		}
	}
	return resp, nil
}

func usageRecord(u build.Usage) *controlapi.UsageRecord {
	return &controlapi.UsageRecord{ID: u.ID, Mutable: u.Mutable(), InUse: u.InUse, Size: u.Size, Parents: u.Parents, CreatedAt: timestamppb.New(u.Created),
		LastUsedAt: timestamppb.New(u.LastUsed), UsageCount: int64(u.Uses), Description: u.Description, RecordType: u.Type, Shared: u.Shared}
}

// Prune makes the cache smaller, and tells of what goes.
func (c *control) Prune(r *controlapi.PruneRequest, s controlapi.Control_PruneServer) error {
	match, err := build.ParseFilters(r.Filter)
	if err != nil {
		return err
	}
	_, err = c.solver.Prune(s.Context(), build.PruneOptions{Match: match, Rule: keep.Rule{All: r.All, Unused: time.Duration(r.KeepDuration),
		Reserved: r.ReservedSpace, Max: r.MaxUsedSpace, MinFree: r.MinFreeSpace}}, func(u build.Usage) {
		_ = s.Send(usageRecord(u)) // who does not read has gone: the context ends
	})
	return err
}

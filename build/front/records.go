package front

import (
	"context"
	"strings"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
)

// DiskUsage lists the cache.
func (c *control) DiskUsage(ctx context.Context, r *controlapi.DiskUsageRequest) (*controlapi.DiskUsageResponse, error) {
	match, err := readFilters(r.Filter)
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
	return &controlapi.UsageRecord{ID: u.ID, Mutable: isMutable(u), InUse: u.InUse, Size: u.Size, Parents: u.Parents, CreatedAt: timestamppb.New(u.Created),
		LastUsedAt: timestamppb.New(u.LastUsed), UsageCount: int64(u.Uses), Description: u.Description, RecordType: u.Type, Shared: u.Shared}
}

func isMutable(u build.Usage) bool { return u.Type == build.TypeMount || u.Type == build.TypeLocal }

// Prune makes the cache smaller, and tells of what goes.
func (c *control) Prune(r *controlapi.PruneRequest, s controlapi.Control_PruneServer) error {
	match, err := readFilters(r.Filter)
	if err != nil {
		return err
	}
	_, err = c.solver.Prune(s.Context(), build.PruneOptions{All: r.All, Unused: time.Duration(r.KeepDuration), Match: match,
		Reserved: r.ReservedSpace, Max: r.MaxUsedSpace, MinFree: r.MinFreeSpace}, func(u build.Usage) {
		_ = s.Send(usageRecord(u)) // who does not read has gone: the context ends
	})
	return err
}

// readFilters reads filters as containerd writes them: each is a list of
// conditions which all hold, and one of the filters has to fit.
func readFilters(filters []string) (func(build.Usage) bool, error) {
	var any [][]condition
	for _, f := range filters {
		var all []condition
		for _, text := range strings.Split(f, ",") {
			if text == "" { // buildx writes one even if it has nothing to say
				continue
			}
			c, err := readCondition(text)
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
		any = append(any, all)
	}
	return func(u build.Usage) bool {
		for _, all := range any {
			fits := true
			for _, c := range all {
				fits = fits && c.fits(u)
			}
			if fits {
				return true
			}
		}
		return len(any) == 0
	}, nil
}

type condition struct {
	key, value string
	not        bool
}

func (c condition) fits(u build.Usage) bool {
	switch c.key {
	case "mutable", "immutable":
		return (isMutable(u) == (c.key == "mutable")) != (c.not || c.value == "false")
	}
	return chosen(u, c.key, c.value) != c.not
}

func readCondition(text string) (condition, error) {
	c := condition{key: text}
	for _, operator := range []string{"~=", "!=", "==", "="} {
		if key, value, found := strings.Cut(text, operator); found {
			c = condition{key, strings.Trim(value, `"`), operator == "!="}
			break
		}
	}
	if c.key == "parents" {
		c.key = "parent"
	}
	switch c.key {
	case "id", "parent", "type", "description", "inuse", "shared", "private", "mutable", "immutable":
		return c, nil
	}
	return c, fault.New(fault.Invalid, "the cache has no filter %q: filter by id, parents, type, description, inuse, shared, private, mutable or immutable", text)
}

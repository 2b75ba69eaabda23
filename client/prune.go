package client

import (
	"context"
	"net/url"
	"strconv"
)

// PruneReport tells what a pruning has removed. Only the list of the pruned
// kind is set.
type PruneReport struct {
	ContainersDeleted []string       `json:",omitempty"`
	ImagesDeleted     []ImageDeleted `json:",omitempty"`
	NetworksDeleted   []string       `json:",omitempty"`
	VolumesDeleted    []string       `json:",omitempty"`
	CachesDeleted     []string       `json:",omitempty"`
	SpaceReclaimed    uint64         `json:",omitempty"` // bytes
}

func (c *Client) prune(ctx context.Context, path string, query url.Values, f Filters) (PruneReport, error) {
	filter(query, f)
	return fetch[PruneReport](ctx, c, "POST", path, query, nil)
}

// ContainersPrune removes the stopped containers.
func (c *Client) ContainersPrune(ctx context.Context, f Filters) (PruneReport, error) {
	return c.prune(ctx, "/containers/prune", url.Values{}, f)
}

// ImagesPrune removes images: the filter dangling says whether only those
// without a name.
func (c *Client) ImagesPrune(ctx context.Context, f Filters) (PruneReport, error) {
	return c.prune(ctx, "/images/prune", url.Values{}, f)
}

// NetworksPrune removes the networks that no container uses.
func (c *Client) NetworksPrune(ctx context.Context, f Filters) (PruneReport, error) {
	return c.prune(ctx, "/networks/prune", url.Values{}, f)
}

// VolumesPrune removes the volumes without a name that no container uses.
func (c *Client) VolumesPrune(ctx context.Context, f Filters) (PruneReport, error) {
	return c.prune(ctx, "/volumes/prune", url.Values{}, f)
}

// BuildPrune empties the build cache: of what is dangling, or of all that is
// not in use.
func (c *Client) BuildPrune(ctx context.Context, all bool, f Filters) (PruneReport, error) {
	return c.BuildPruneTo(ctx, all, nil, f)
}

// BuildPruneTo does so as far as the ceilings say, in bytes by the API's names:
// reserved-space, max-used-space, min-free-space, keep-storage.
func (c *Client) BuildPruneTo(ctx context.Context, all bool, ceilings map[string]int64, f Filters) (PruneReport, error) {
	query := url.Values{}
	flag(query, "all", all)
	for name, n := range ceilings {
		query.Set(name, strconv.FormatInt(n, 10))
	}
	return c.prune(ctx, "/build/prune", query, f)
}

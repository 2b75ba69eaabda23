package client

import (
	"context"
	"net/url"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/plainjson"
)

// VolumeCreateRequest is the body of POST /volumes/create.
type VolumeCreateRequest struct {
	Name       string            `json:",omitempty"` // "" for one that nobody gave a name
	Driver     string            `json:",omitempty"`
	DriverOpts map[string]string `json:",omitempty"`
	Labels     map[string]string `json:",omitempty"`
}

// VolumeCreate makes a volume, or finds the one that has the name.
func (c *Client) VolumeCreate(ctx context.Context, r *VolumeCreateRequest) (Volume, error) {
	return fetch[Volume](ctx, c, "POST", "/volumes/create", nil, r)
}

// VolumeRemove removes a volume that no container uses; with force it is no error
// that there is none.
func (c *Client) VolumeRemove(ctx context.Context, name string, force bool) error {
	query := url.Values{}
	flag(query, "force", force)
	return c.call(ctx, "DELETE", "/volumes/"+segment(name), query, nil, nil)
}

// VolumeList lists volumes, and tells what went wrong with some.
func (c *Client) VolumeList(ctx context.Context, f Filters) (list []Volume, warnings []string, err error) {
	return fetchVolumes[Volume](ctx, c, f, url.Values{})
}

// VolumeLine is what a plain list shows of a volume.
type VolumeLine struct{ Driver, Name string }

// VolumeLines is VolumeList for no more than that, of which there may be thousands.
func (c *Client) VolumeLines(ctx context.Context, f Filters) (list []VolumeLine, warnings []string, err error) {
	return fetchVolumes[VolumeLine](ctx, c, f, url.Values{"brief": {"1"}})
}

func fetchVolumes[T any](ctx context.Context, c *Client, f Filters, query url.Values) (list []T, warnings []string, err error) {
	filter(query, f)
	text, err := fetch[[]byte](ctx, c, "GET", "/volumes", query, nil)
	if err != nil {
		return nil, nil, err
	}
	var out struct {
		Volumes  []T
		Warnings []string
	}
	if err := plainjson.Unmarshal(text, &out); err != nil {
		return nil, nil, fault.New(fault.Internal, "the answer to /volumes cannot be understood: %w", err)
	}
	return out.Volumes, out.Warnings, nil
}

// VolumeInspectRaw returns the daemon's JSON as it is.
func (c *Client) VolumeInspectRaw(ctx context.Context, name string) ([]byte, error) {
	return fetch[[]byte](ctx, c, "GET", "/volumes/"+segment(name), nil, nil)
}

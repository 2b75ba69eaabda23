package client

import (
	"context"
	"net/url"
)

// NetworkSummary is a listed network.
type NetworkSummary struct {
	Name, Id, Scope, Driver string
	Created                 string // RFC 3339
	EnableIPv4, EnableIPv6  bool
	Internal                bool
	Labels                  map[string]string
}

// NetworkList lists networks.
func (c *Client) NetworkList(ctx context.Context, f Filters) ([]NetworkSummary, error) {
	query := url.Values{}
	filter(query, f)
	return fetchList[NetworkSummary](ctx, c, "/networks", query)
}

// NetworkInspectRaw returns the daemon's JSON as it is.
func (c *Client) NetworkInspectRaw(ctx context.Context, name string, verbose bool) ([]byte, error) {
	query := url.Values{}
	flag(query, "verbose", verbose)
	return fetch[[]byte](ctx, c, "GET", "/networks/"+segment(name), query, nil)
}

// VolumeList lists volumes, and tells what went wrong with some.
func (c *Client) VolumeList(ctx context.Context, f Filters) (list []Volume, warnings []string, err error) {
	query := url.Values{}
	filter(query, f)
	out, err := fetch[struct {
		Volumes  []Volume
		Warnings []string
	}](ctx, c, "GET", "/volumes", query, nil)
	return out.Volumes, out.Warnings, err
}

// VolumeInspectRaw returns the daemon's JSON as it is.
func (c *Client) VolumeInspectRaw(ctx context.Context, name string) ([]byte, error) {
	return fetch[[]byte](ctx, c, "GET", "/volumes/"+segment(name), nil, nil)
}

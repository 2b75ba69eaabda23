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

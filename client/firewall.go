package client

import "context"

// Exposure is one way in which a container can be reached: who connects where,
// where that leads, and the firewall's rule for it.
type Exposure struct{ Container, Network, Target, At, From, Rule string }

// NetworkRules returns the firewall rules that the daemon wants, as nft prints
// them.
func (c *Client) NetworkRules(ctx context.Context) ([]byte, error) {
	return fetch[[]byte](ctx, c, "GET", "/firewall/rules", nil, nil)
}

// NetworkExposure tells who can reach which port of which container.
func (c *Client) NetworkExposure(ctx context.Context) ([]Exposure, error) {
	return fetchList[Exposure](ctx, c, "/firewall/exposure", nil)
}

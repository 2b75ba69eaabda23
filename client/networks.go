package client

import (
	"context"
)

// NetworkCreateRequest is the body of POST /networks/create.
type NetworkCreateRequest struct {
	Name       string
	Driver     string            `json:",omitempty"`
	Scope      string            `json:",omitempty"`
	EnableIPv4 *bool             `json:",omitempty"` // nil leaves it to the daemon, as with IPv6
	EnableIPv6 *bool             `json:",omitempty"`
	IPAM       *IPAM             `json:",omitempty"`
	Internal   bool              `json:",omitempty"`
	Attachable bool              `json:",omitempty"`
	Ingress    bool              `json:",omitempty"`
	ConfigOnly bool              `json:",omitempty"`
	ConfigFrom *NetworkReference `json:",omitempty"`
	Options    map[string]string `json:",omitempty"`
	Labels     map[string]string `json:",omitempty"`
}

// NetworkReference names a network whose configuration is taken.
type NetworkReference struct{ Network string }

// IPAM says how a network's addresses are managed.
type IPAM struct {
	Driver  string            `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
	Config  []IPAMConfig      `json:",omitempty"`
}

// IPAMConfig is one subnet of a network.
type IPAMConfig struct {
	Subnet             string            `json:",omitempty"`
	IPRange            string            `json:",omitempty"`
	Gateway            string            `json:",omitempty"`
	AuxiliaryAddresses map[string]string `json:",omitempty"` // by name
}

// NetworkCreate makes a network and returns its ID.
func (c *Client) NetworkCreate(ctx context.Context, r *NetworkCreateRequest) (id string, warning string, err error) {
	out, err := fetch[struct{ Id, Warning string }](ctx, c, "POST", "/networks/create", nil, r)
	return out.Id, out.Warning, err
}

// NetworkConnectRequest is the body of POST /networks/{id}/connect.
type NetworkConnectRequest struct {
	Container      string
	EndpointConfig *EndpointSettings `json:",omitempty"`
}

// NetworkConnect gives a container a place on a network.
func (c *Client) NetworkConnect(ctx context.Context, network, container string, e *EndpointSettings) error {
	return c.call(ctx, "POST", "/networks/"+segment(network)+"/connect", nil, NetworkConnectRequest{container, e}, nil)
}

// NetworkDisconnectRequest is the body of POST /networks/{id}/disconnect.
type NetworkDisconnectRequest struct {
	Container string
	Force     bool `json:",omitempty"`
}

// NetworkDisconnect takes a container off a network; with force also one that
// the daemon does not know any more.
func (c *Client) NetworkDisconnect(ctx context.Context, network, container string, force bool) error {
	return c.call(ctx, "POST", "/networks/"+segment(network)+"/disconnect", nil, NetworkDisconnectRequest{container, force}, nil)
}

// NetworkRemove removes a network that no running container uses.
func (c *Client) NetworkRemove(ctx context.Context, name string) error {
	return c.call(ctx, "DELETE", "/networks/"+segment(name), nil, nil, nil)
}

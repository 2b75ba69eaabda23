package network

import (
	"context"
	"net/netip"

	wire "github.com/moby/moby/api/types/network"
)

// Restorer is a Driver whose networks are kept elsewhere: Restore is called for
// each that there is when the daemon begins, in place of Create.
type Restorer interface {
	Restore(ctx context.Context, n wire.Network) error
}

// Gate is a Driver that publishes ports itself. Expose is called when an endpoint
// of its becomes the one that has the container's default route, Conceal when it
// stops being that, before Leave.
type Gate interface {
	Expose(ctx context.Context, n wire.Network, e Endpoint, ports []Port) error
	Conceal(ctx context.Context, n wire.Network, e Endpoint) error
}

// Addresses gives out a network's addresses in place of package ipam. What it gave
// it keeps itself: nothing is asked for again after a restart.
type Addresses interface {
	TakePool(ctx context.Context, w PoolWant) (AddressPool, error)
	DropPool(ctx context.Context, poolID string) error
	// Take takes the address, or with none one of the driver's choice, for an
	// interface of the MAC if that is known.
	Take(ctx context.Context, poolID string, wanted netip.Addr, use AddressUse, mac string) (netip.Prefix, error)
	Drop(ctx context.Context, poolID string, a netip.Addr) error
	// NeedsMAC tells whether it gives addresses to interfaces only whose MAC it is
	// told.
	NeedsMAC() bool
}

// PoolWant asks for a subnet: a certain one, or without Subnet one of the driver's
// choice that overlaps none of Avoid. Addresses that nobody chooses come from the
// range Within, if that is valid.
type PoolWant struct {
	Subnet, Within netip.Prefix
	Avoid          []netip.Prefix
	V6             bool
	Options        map[string]string // of the network's IPAM
}

// AddressPool is a subnet that was taken.
type AddressPool struct {
	ID      string
	Subnet  netip.Prefix
	Gateway netip.Prefix // if the driver says one
}

// AddressUse is what an address is for.
type AddressUse string

// The uses that Addresses are told of, as the protocol names them.
const (
	ForEndpoint AddressUse = ""
	ForGateway  AddressUse = "com.docker.network.gateway"
)

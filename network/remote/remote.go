// Package remote has networks and their addresses made by Docker plugins: programs
// of others that implement NetworkDriver or IpamDriver, libnetwork's protocols for
// remote drivers. The plugin keeps what it must know of a network; what it answers
// about an endpoint is stored with the endpoint.
//
//	network    GetCapabilities, [AllocateNetwork,] CreateNetwork … DeleteNetwork[, FreeNetwork]
//	endpoint   CreateEndpoint, Join, EndpointOperInfo … Leave, DeleteEndpoint
//	gateway    ProgramExternalConnectivity … RevokeExternalConnectivity
//	addresses  RequestPool, RequestAddress … ReleaseAddress, ReleasePool
//
// Those in brackets are for plugins of global scope. Nodes are not announced
// (DiscoverNew, DiscoverDelete), as an engine without a cluster has no other.
//
// https://github.com/moby/moby/blob/master/daemon/libnetwork/docs/remote.md
package remote

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/plugin"
	"github.com/tarehq/tare/network"
)

// The protocols, as plugins name them.
const (
	networkDriver = "NetworkDriver"
	ipamDriver    = "IpamDriver"
)

// farewell is how long a plugin has to take something back, and comeback after which
// time one that cannot be reached is tried a second time: what ends does not wait
// for a plugin that is gone.
const (
	farewell = 10 * time.Second
	comeback = 500 * time.Millisecond
)

// Plugins finds the drivers of networks and addresses among a machine's plugins.
type Plugins struct {
	set *plugin.Set

	mu         sync.Mutex // guards those whose capabilities are known
	drivers    map[string]*Driver
	allocators map[string]*Allocator
}

// New returns the drivers of a set, which stays its maker's.
func New(set *plugin.Set) *Plugins {
	return &Plugins{set: set, drivers: map[string]*Driver{}, allocators: map[string]*Allocator{}}
}

// Network gives the network driver of a name. One that is not there is
// fault.NotFound.
func (p *Plugins) Network(ctx context.Context, name string) (network.Driver, error) {
	found, err := p.set.Get(ctx, name, networkDriver)
	if err != nil {
		return nil, known(err)
	}
	p.mu.Lock()
	d := p.drivers[name]
	p.mu.Unlock()
	if d != nil && d.plugin == found {
		return d, nil
	}
	d = &Driver{plugin: found}
	if err := d.learn(ctx); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drivers[name] = d
	return d, nil
}

// ask calls a method.
func ask(ctx context.Context, p *plugin.Plugin, method string, args, result any) error {
	return inWords(p.Call(ctx, method, args, result))
}

// inWords gives a plugin's refusal Docker's words, and other errors their kinds.
func inWords(err error) error {
	var refusal *plugin.Refusal
	if errors.As(err, &refusal) && refusal.Status == 200 {
		return fault.New(fault.Internal, "remote: %w", err)
	}
	return known(err)
}

// part has a plugin take something back, even when ctx has ended.
func part(ctx context.Context, p *plugin.Plugin, method string, args any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	err := p.CallOnce(ctx, method, args, nil)
	if errors.Is(err, plugin.Unavailable) && ctx.Err() == nil {
		time.Sleep(comeback)
		err = p.CallOnce(ctx, method, args, nil)
	}
	return inWords(err)
}

// askIfKnown is ask for methods that a plugin need not have.
func askIfKnown(ctx context.Context, p *plugin.Plugin, method string, args, result any) error {
	err := ask(ctx, p, method, args, result)
	if plugin.Unknown(err) {
		return nil
	}
	return err
}

// known gives an error of the plugin client one of our kinds.
func known(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, plugin.NotFound):
		return fault.New(fault.NotFound, "%w", err)
	case errors.Is(err, plugin.Invalid):
		return fault.New(fault.Invalid, "%w", err)
	case errors.Is(err, plugin.Unavailable):
		return fault.New(fault.Unavailable, "%w", err)
	}
	return err
}

package remote

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/plugin"
	"github.com/tarehq/tare/network"
)

// Allocator is a plugin that gives out addresses.
type Allocator struct {
	plugin *plugin.Plugin
	space  string // the plugin's name for addresses of this host
	byMAC  bool   // addresses are given to interfaces
}

// Addresses gives the IPAM driver of a name. One that is not there is
// fault.NotFound.
func (p *Plugins) Addresses(ctx context.Context, name string) (network.Addresses, error) {
	found, err := p.set.Get(ctx, name, ipamDriver)
	if err != nil {
		return nil, known(err)
	}
	p.mu.Lock()
	a := p.allocators[name]
	p.mu.Unlock()
	if a != nil && a.plugin == found {
		return a, nil
	}
	a = &Allocator{plugin: found}
	if err := a.learn(ctx); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allocators[name] = a
	return a, nil
}

// learn asks for the plugin's capabilities, which it need not tell, and for its
// address spaces.
func (a *Allocator) learn(ctx context.Context) error {
	var can struct{ RequiresMACAddress bool }
	if err := askIfKnown(ctx, a.plugin, ipamDriver+".GetCapabilities", nil, &can); err != nil {
		return err
	}
	var spaces struct{ LocalDefaultAddressSpace string }
	if err := a.ask(ctx, "GetDefaultAddressSpaces", nil, &spaces); err != nil {
		return err
	}
	a.byMAC, a.space = can.RequiresMACAddress, spaces.LocalDefaultAddressSpace
	return nil
}

func (a *Allocator) ask(ctx context.Context, method string, args, result any) error {
	return ask(ctx, a.plugin, ipamDriver+"."+method, args, result)
}

// NeedsMAC is what the plugin said of itself.
func (a *Allocator) NeedsMAC() bool { return a.byMAC }

// mostPools is how many pools of a plugin's choice are tried.
const mostPools = 64

// TakePool takes a pool. Those that it offers and that overlap others are held
// until another is found, or it would offer them again.
func (a *Allocator) TakePool(ctx context.Context, w network.PoolWant) (pool network.AddressPool, err error) {
	var held []string
	defer func() {
		for _, id := range held {
			err = errors.Join(err, a.DropPool(ctx, id))
		}
	}()
	for range mostPools {
		if pool, err = a.requestPool(ctx, w); err != nil || w.Subnet.IsValid() || !overlaps(pool.Subnet, w.Avoid) {
			return pool, err
		}
		held = append(held, pool.ID)
	}
	return network.AddressPool{}, fault.New(fault.Unavailable, "plugin %q offers only subnets that overlap others; name one", a.plugin.Name)
}

func (a *Allocator) requestPool(ctx context.Context, w network.PoolWant) (network.AddressPool, error) {
	request := struct {
		AddressSpace, Pool, SubPool string
		Options                     map[string]string
		V6                          bool
	}{AddressSpace: a.space, Options: w.Options, V6: w.V6}
	if w.Subnet.IsValid() {
		request.Pool = w.Subnet.String()
	}
	if w.Within.IsValid() {
		request.SubPool = w.Within.String()
	}
	var answer struct {
		PoolID, Pool string
		Data         map[string]string
	}
	if err := a.ask(ctx, "RequestPool", request, &answer); err != nil {
		return network.AddressPool{}, err
	}
	pool := network.AddressPool{ID: answer.PoolID}
	var err error
	if pool.Subnet, err = netip.ParsePrefix(answer.Pool); err == nil && pool.Subnet.Addr().Is6() != w.V6 {
		err = fault.New(fault.Unavailable, "%s is of the other family", pool.Subnet)
	}
	if gateway := answer.Data[optionGateway]; gateway != "" && err == nil {
		pool.Gateway, err = netip.ParsePrefix(gateway)
	}
	if err != nil {
		err = fault.New(fault.Unavailable, "plugin %q answers RequestPool wrongly: %w", a.plugin.Name, err)
		return network.AddressPool{}, errors.Join(err, a.DropPool(ctx, pool.ID))
	}
	return pool, nil
}

func overlaps(p netip.Prefix, others []netip.Prefix) bool {
	return p.Bits() != 0 && slices.ContainsFunc(others, p.Overlaps)
}

// DropPool gives a pool back.
func (a *Allocator) DropPool(ctx context.Context, poolID string) error {
	return part(ctx, a.plugin, ipamDriver+".ReleasePool", map[string]string{"PoolID": poolID})
}

// Take takes an address.
func (a *Allocator) Take(ctx context.Context, poolID string, wanted netip.Addr, use network.AddressUse, mac string) (netip.Prefix, error) {
	request := struct {
		PoolID, Address string
		Options         map[string]string
	}{PoolID: poolID, Options: map[string]string{}}
	if wanted.IsValid() {
		request.Address = wanted.String()
	}
	if use != network.ForEndpoint {
		request.Options["RequestAddressType"] = string(use)
	} else if a.byMAC && mac != "" {
		request.Options[optionMAC] = mac
	}
	var answer struct{ Address string }
	if err := a.ask(ctx, "RequestAddress", request, &answer); err != nil {
		return netip.Prefix{}, err
	}
	p, err := netip.ParsePrefix(answer.Address)
	if err == nil && wanted.IsValid() && p.Addr() != wanted {
		err = fault.New(fault.Unavailable, "%s was asked for", wanted)
		err = errors.Join(err, a.Drop(ctx, poolID, p.Addr()))
	}
	if err != nil {
		return netip.Prefix{}, fault.New(fault.Unavailable, "plugin %q answers RequestAddress with %.60q: %w", a.plugin.Name, answer.Address, err)
	}
	return p, nil
}

// Drop gives an address back.
func (a *Allocator) Drop(ctx context.Context, poolID string, addr netip.Addr) error {
	return part(ctx, a.plugin, ipamDriver+".ReleaseAddress", map[string]string{"PoolID": poolID, "Address": addr.String()})
}

package container

import (
	"context"
	"maps"
	"slices"

	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/undo"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/shape"
)

// AllNetworks stands for each network of a container in Limit. No network has
// such a name.
const AllNetworks = "*"

// CheckLimits refuses options that Limit could never set.
func CheckLimits(endpoints map[string]*wirenet.EndpointSettings) error {
	for name, e := range endpoints {
		if e == nil {
			return fault.New(fault.Invalid, "invalid config for network %s: EndpointsConfig is nil", name)
		}
		rest := *e
		rest.DriverOpts = nil
		if !isUnset(&rest) {
			return fault.New(fault.Invalid, "invalid config for network %s: only DriverOpts can be changed of a place on a network; disconnect the container and connect it anew", name)
		}
		for key := range e.DriverOpts {
			if !shape.IsOption(key) {
				return fault.New(fault.Invalid, "invalid config for network %s: the option %s cannot be changed of a place on a network; disconnect the container and connect it anew", name, key)
			}
		}
		if _, err := shape.FromOptions(e.DriverOpts); err != nil {
			return err
		}
	}
	return nil
}

func isUnset(e *wirenet.EndpointSettings) bool {
	return e.IPAMConfig == nil && len(e.Links) == 0 && len(e.Aliases) == 0 && len(e.DriverOpts) == 0 && e.GwPriority == 0 && len(e.MacAddress) == 0
}

// Limit changes how fast a container's networks are: options that are given take
// the place of those that its places have, an empty one or 0 lifts the limit. A
// running container's interfaces follow at once: all of them or none.
func (p *Places) Limit(ctx context.Context, nameOrID string, endpoints map[string]*wirenet.EndpointSettings) (err error) {
	if err := CheckLimits(endpoints); err != nil {
		return err
	}
	s := p.containers
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	all, changed, err := p.limited(&r, endpoints)
	if err != nil {
		return err
	}
	var back undo.Stack
	defer back.OnError(&err)
	ctx = context.WithoutCancel(ctx)
	c := &connection{containers: s, r: r}
	if r.State.Up() && r.Sandbox != nil {
		if err := c.setRates(ctx, all, changed, &back); err != nil {
			return err
		}
	}
	return c.wish(all)
}

// limited gives the container's places as they are to be, and the names of those
// that change.
func (p *Places) limited(r *Record, endpoints map[string]*wirenet.EndpointSettings) (all map[string]*wirenet.EndpointSettings, changed []string, err error) {
	all = r.AllWishes()
	// What is said for all networks first, that what is said for one goes before it.
	for _, given := range slices.Sorted(maps.Keys(endpoints)) {
		names := []string{given}
		if n, err := p.containers.cfg.Networks.Lookup(given); err == nil {
			names[0] = n.Name
		}
		if given == AllNetworks {
			names = slices.Collect(maps.Keys(all))
		}
		for _, name := range names {
			if all[name] == nil {
				return nil, nil, fault.New(fault.NotFound, "container %s is not connected to the network %s", r.Name, name)
			}
			settings := all[name].Copy()
			settings.DriverOpts = withLimits(settings.DriverOpts, endpoints[given].DriverOpts)
			if err := p.check(name, settings); err != nil {
				return nil, nil, err
			}
			all[name] = settings
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	return all, slices.Compact(changed), nil
}

// withLimits is the options with the limits among them changed.
func withLimits(options, limits map[string]string) map[string]string {
	options = maps.Clone(options)
	for key, value := range limits {
		if l, err := shape.FromOptions(map[string]string{key: value}); err == nil && l == (shape.Limits{}) {
			delete(options, key)
			continue
		}
		if options == nil {
			options = map[string]string{}
		}
		options[key] = value
	}
	return options
}

// setRates has the interfaces follow.
func (c *connection) setRates(ctx context.Context, all map[string]*wirenet.EndpointSettings, changed []string, back *undo.Stack) error {
	s, before := c.containers, *c.r.Sandbox
	after := before
	for _, e := range before.Endpoints {
		if !slices.Contains(changed, e.NetworkName) {
			continue
		}
		rate, err := shape.FromOptions(all[e.NetworkName].DriverOpts)
		if err != nil {
			return err
		}
		if rate == e.Rate {
			continue
		}
		back.Push(func() error {
			_, err := s.cfg.Networks.SetRate(ctx, before, e.ID, e.Rate)
			return err
		})
		if after, err = s.cfg.Networks.SetRate(ctx, after, e.ID, rate); err != nil {
			return err
		}
	}
	back.Push(func() error { return keepSandbox(s.bundles.path(c.r.ID), &before) })
	return c.record(ctx, after)
}

// checkRate tells what is wrong with the limits that a place's options say.
func checkRate(n *network.Network, options map[string]string) error {
	rate, err := shape.FromOptions(options)
	if err == nil && n != nil {
		err = network.CheckRate(*n, rate)
	}
	return err
}

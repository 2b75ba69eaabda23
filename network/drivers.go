package network

import (
	"context"

	"github.com/tarehq/tare/fault"
)

// drivers make the networks of other kinds than bridge.
type drivers struct {
	built  map[string]Driver
	plugin func(ctx context.Context, name string) (Driver, error) // nil finds none
}

// find finds one of other kinds than bridge.
func (d *drivers) find(ctx context.Context, name string) (Driver, error) {
	switch name {
	case networkHost, driverNull:
		return nil, fault.New(fault.Forbidden, "only one instance of %q network is allowed", name)
	case "overlay":
		return nil, fault.New(fault.Forbidden, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	}
	if found := d.built[name]; found != nil {
		return found, nil
	}
	if d.plugin != nil {
		return d.plugin(ctx, name)
	}
	return nil, fault.New(fault.NotFound, "could not find plugin %s in v1 plugin registry: plugin not found", name)
}

// findAgain looks for the driver of a network that was not there when the daemon
// started.
func (d *drivers) findAgain(ctx context.Context, l *lan) error {
	if l.driver() != nil || l.Driver == networkBridge || l.ConfigOnly {
		return nil
	}
	found, err := d.find(ctx, l.Driver)
	l.setDriver(found)
	return err
}

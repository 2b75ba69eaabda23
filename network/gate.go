package network

import (
	"context"
	"fmt"
	"log/slog"
)

// moveGate tells the drivers that publish ports themselves when one of the
// sandbox's endpoints begins or stops to have the default route. Who wants a
// driver's help is in the sandbox, and nobody is asked for bridges alone.
func (n *lans) moveGate(ctx context.Context, b *Sandbox) error {
	gate := b.Gateway4()
	if gate == nil {
		gate = b.Gateway6()
	}
	for i := range b.Endpoints {
		if e := &b.Endpoints[i]; e.Exposed && e != gate {
			n.conceal(ctx, e)
		}
	}
	if gate == nil || gate.Exposed || gate.Driver == networkBridge {
		return nil
	}
	l := n.get(gate.NetworkID)
	if l == nil {
		return nil
	}
	d, ok := l.driver().(Gate)
	if !ok {
		return nil
	}
	if err := d.Expose(ctx, l.Network, *gate, b.Pending); err != nil {
		return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", b.Name, gate.ID, err)
	}
	gate.Exposed = true
	return nil
}

// conceal is the end of what moveGate began.
func (n *lans) conceal(ctx context.Context, e *Endpoint) {
	e.Exposed = false
	l := n.get(e.NetworkID)
	if l == nil {
		return
	}
	if d, ok := l.driver().(Gate); ok {
		if err := d.Conceal(ctx, l.Network, *e); err != nil {
			slog.Warn("the driver of a network could not take back what it published", "network", l.Name, "driver", l.Driver, "endpoint", e.ID, "err", err)
		}
	}
}

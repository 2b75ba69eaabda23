package container

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/supervise"
)

// attached is a container's network while it is being started.
type attached struct {
	sandbox *network.Sandbox // nil without an interface of its own
	netns   *os.File
	sockets []*os.File
	other   *joined // the namespace of another container
	path    string  // of the namespace in config.json; "" for a new one, "host" for the host's
}

// close drops our copies; the supervising process has its own.
func (a *attached) close() {
	if a.netns != nil {
		a.netns.Close()
	}
	for _, f := range a.sockets {
		f.Close()
	}
	a.other.close()
}

// relays are the published ports that the supervising process serves itself.
func (a *attached) relays() (list []supervise.Relay) {
	if a.sandbox == nil {
		return nil
	}
	for _, r := range a.sandbox.Relays() {
		list = append(list, supervise.Relay{Proto: r.Proto, Host: r.Host.String(), First: r.First, Last: r.Last, To: r.To.String()})
	}
	return list
}

// attach gives the container its place on its network.
func (b *bundle) attach(ctx context.Context) (*attached, error) {
	s, r := b.containers, b.r
	switch mode := r.HostConfig.NetworkMode; {
	case mode.IsHost():
		return &attached{path: "host"}, nil
	case mode.IsNone():
		return &attached{}, nil
	case mode.IsContainer():
		other, err := b.join(mode.ConnectedContainer(), "net")
		if err != nil {
			return nil, err
		}
		return &attached{other: other, path: other.path()}, nil
	}
	req, err := networkRequest(r, s.cfg.Defaults.get().PublishIP)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Networks.Attach(ctx, req)
	if err != nil {
		return nil, err
	}
	return &attached{sandbox: &a.Sandbox, netns: a.NetNS, sockets: a.Sockets, path: supervise.NetNSPath}, nil
}

// address is the container's own, as its hosts file tells it.
func (r *Record) address() netip.Addr {
	if r.Sandbox == nil || len(r.Sandbox.Endpoints) == 0 {
		return netip.Addr{}
	}
	return r.Sandbox.Endpoints[0].Address.Addr()
}

// detach takes it back.
func detach(ctx context.Context, networks *network.Service, b *network.Sandbox) error {
	if b == nil {
		return nil
	}
	return networks.Detach(ctx, *b)
}

// publishPlace tells of a container's coming to its networks or leaving them.
func publishPlace(log *event.Log, r Record, action events.Action) {
	for _, e := range r.Sandbox.Endpoints {
		log.Publish(events.NetworkEventType, action, events.Actor{ID: e.NetworkID,
			Attributes: map[string]string{"container": r.ID, "name": e.NetworkName, "type": e.Driver}})
	}
}

// saveSandbox keeps the container's places on networks beside its bundle,
// for a daemon that takes over.
func saveSandbox(dir string, b *network.Sandbox) error {
	if b == nil {
		return nil
	}
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "endpoint.json"), data, 0o600)
}

// loadSandbox reads it again, nil if the container has none.
func loadSandbox(dir string) *network.Sandbox {
	data, err := os.ReadFile(filepath.Join(dir, "endpoint.json"))
	if err != nil {
		return nil
	}
	var b network.Sandbox
	if json.Unmarshal(data, &b) != nil {
		return nil
	}
	return &b
}

package container

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/supervise"
)

// attached is a container's network while it is being started.
type attached struct {
	endpoint *network.Endpoint // nil without an interface of its own
	netns    *os.File
	sockets  []*os.File
	other    *joined // the namespace of another container
	path     string  // of the namespace in config.json; "" for a new one, "host" for the host's
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
	return &attached{endpoint: &a.Endpoint, netns: a.NetNS, sockets: a.Sockets, path: supervise.NetNSPath}, nil
}

// detach takes it back.
func detach(ctx context.Context, networks *network.Service, e *network.Endpoint) error {
	if e == nil {
		return nil
	}
	return networks.Detach(ctx, *e)
}

// publishPlace tells of a container's coming to a network or leaving it.
func publishPlace(log *event.Log, r Record, action events.Action) {
	log.Publish(events.NetworkEventType, action, events.Actor{ID: r.Endpoint.NetworkID,
		Attributes: map[string]string{"container": r.ID, "name": "bridge", "type": "bridge"}})
}

// saveEndpoint keeps the container's place on the network beside its bundle,
// for a daemon that takes over.
func saveEndpoint(dir string, e *network.Endpoint) error {
	if e == nil {
		return nil
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "endpoint.json"), data, 0o600)
}

// loadEndpoint reads it again, nil if the container has none.
func loadEndpoint(dir string) *network.Endpoint {
	data, err := os.ReadFile(filepath.Join(dir, "endpoint.json"))
	if err != nil {
		return nil
	}
	var e network.Endpoint
	if json.Unmarshal(data, &e) != nil {
		return nil
	}
	return &e
}

package container

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/events"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/supervise"
)

// attached is a container's network while it is being started.
type attached struct {
	sandbox *network.Sandbox // nil without an interface of its own
	netns   *os.File
	sockets []*os.File
	sys     *os.File // until the container has mounted it
	other   *joined  // the namespace of another container
	path    string   // of the namespace in config.json; "" for a new one, "host" for the host's
}

// close drops our copies; the supervising process has its own.
func (a *attached) close() {
	if a.netns != nil {
		a.netns.Close()
	}
	for _, f := range a.sockets {
		f.Close()
	}
	if a.sys != nil {
		a.sys.Close()
	}
	a.other.close()
}

// manySockets are as many as the supervising process has no room for.
const manySockets = 64

// relays are the published ports that the supervising process serves itself.
func relays(b *network.Sandbox) (list []supervise.Relay) {
	if b == nil {
		return nil
	}
	for _, r := range b.Relays() {
		list = append(list, supervise.Relay{Proto: r.Proto, Host: r.Host.String(), First: r.First, Last: r.Last, To: r.To.String(), Whole: r.Whole})
	}
	return list
}

// attach gives the container its place on its network.
func (b *bundle) attach(ctx context.Context) (*attached, error) {
	s, r := b.containers, b.r
	switch mode := r.HostConfig.NetworkMode; {
	case mode.IsHost():
		return &attached{path: "host"}, nil
	case mode.IsContainer():
		other, err := b.join(mode.ConnectedContainer(), "net")
		if err != nil {
			return nil, err
		}
		return &attached{other: other, path: other.path()}, nil
	}
	_, missing := s.cfg.Networks.Lookup(wirenet.NetworkBridge)
	req, err := networkRequest(r, s.cfg.Defaults.Get(), missing == nil)
	if err != nil || len(req.Wants) == 0 && (len(req.Ports) == 0 || r.HostConfig.NetworkMode.IsNone()) {
		return &attached{}, err // the runtime makes a namespace with nothing in it
	}
	for i := range req.Wants {
		b.from.settle(s.cfg.Networks, &req.Wants[i])
	}
	// The daemon's own users have all networks that wait for somebody.
	remapped := r.UsersOf == "" && r.Users != nil && r.Users.Same(s.cfg.IDs.Remap)
	if !remapped {
		if req.NetNS, err = b.makeUsers(true); err != nil {
			return nil, err
		}
	}
	if sockets := 2 * len(req.Ports); sockets > manySockets { // one for each family
		s.cfg.Launcher.Room(sockets)
	}
	a, err := s.cfg.Networks.Attach(ctx, req)
	if err != nil {
		return nil, err
	}
	place := &attached{sandbox: &a.Sandbox, netns: a.NetNS, sockets: a.Sockets, sys: a.Sys, path: supervise.NetNSPath}
	if remapped {
		if b.users.User, err = userns.OfNetwork(a.NetNS); err != nil {
			place.close()
			return nil, errors.Join(err, detach(ctx, s.cfg.Networks, place.sandbox))
		}
	}
	return place, nil
}

// networkRequest is what the container asks of its networks. Ports that name no
// address of the host are published at the daemon's. A daemon without a default
// bridge gives those who would be on it nothing, as Docker does.
func networkRequest(r *Record, daemon *create.Settings, bridged bool) (network.Request, error) {
	req := network.Request{ContainerID: r.ID, Name: r.Name, Hostname: r.Config.Hostname, Domainname: r.Config.Domainname,
		DNS: resolver(r.HostConfig, daemon), ReadOnlySys: !r.HostConfig.Privileged}
	for _, p := range r.Places() {
		if p.Network == wirenet.NetworkNone || p.Network == wirenet.NetworkBridge && !bridged {
			continue
		}
		want, err := p.Want()
		if err != nil {
			return req, err
		}
		want.WithoutIPv6 = r.WithoutIPv6()
		req.Wants = append(req.Wants, want)
	}
	var err error
	req.Ports, err = publishing(r, daemon)
	return req, err
}

// publishing are the ports that the container wants to publish.
func publishing(r *Record, daemon *create.Settings) ([]network.Port, error) {
	ports, err := create.Ports(r.HostConfig.PortBindings, r.Config.ExposedPorts, r.HostConfig.PublishAllPorts)
	if err != nil {
		return nil, err
	}
	for i := range ports {
		if !ports[i].HostIP.IsValid() {
			ports[i].HostIP = daemon.PublishIP
		}
	}
	return ports, nil
}

// detach takes it back.
func detach(ctx context.Context, networks *network.Service, b *network.Sandbox) error {
	if b == nil {
		return nil
	}
	return networks.Detach(ctx, *b)
}

// publishPlace tells of one.
func publishPlace(log *event.Log, containerID string, e network.Endpoint, action events.Action) {
	log.Publish(events.NetworkEventType, action, events.Actor{ID: e.NetworkID,
		Attributes: map[string]string{"container": containerID, "name": e.NetworkName, "type": e.Driver}})
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

// keepSandbox replaces what saveSandbox wrote, while a daemon may die.
func keepSandbox(dir string, b *network.Sandbox) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, "endpoint.json"), data, 0o600)
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

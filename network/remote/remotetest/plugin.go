// Package remotetest is a small Docker plugin for tests: its networks are bridges
// that it makes itself, its endpoints interface pairs of which one end is the
// container's, its addresses those of 10.66.0.0/16.
package remotetest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
)

// Plugin answers the daemon's calls. It acts on the network namespace that its
// process is in.
type Plugin struct {
	// Scope is what it says of its networks; "local" if "".
	Scope string
	// Refuse holds what methods answer instead of being carried out.
	Refuse map[string]string

	mu        sync.Mutex
	calls     []string
	bodies    map[string]string
	networks  map[string]string // by ID, the gateway
	endpoints map[string]bool
	pools     map[string]bool
	given     map[netip.Addr]bool
}

// New returns one that has nothing yet.
func New() *Plugin {
	return &Plugin{Refuse: map[string]string{}, bodies: map[string]string{}, networks: map[string]string{},
		endpoints: map[string]bool{}, pools: map[string]bool{}, given: map[netip.Addr]bool{}}
}

// Calls lists the methods that were called, without those that only ask.
func (p *Plugin) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// Body gives what the method was last called with.
func (p *Plugin) Body(method string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bodies[method]
}

// Left tells what the plugin has that was not taken back.
func (p *Plugin) Left() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.networks)+len(p.endpoints)+len(p.pools)+len(p.given) == 0 {
		return ""
	}
	return fmt.Sprintf("networks %v, endpoints %v, pools %v, addresses %v", p.networks, p.endpoints, p.pools, p.given)
}

// request has the fields of all requests that are looked at.
type request struct {
	NetworkID, EndpointID string
	IPv4Data              []struct{ Pool, Gateway string }
	PoolID, Pool, Address string
	V6                    bool
}

func (p *Plugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/")
	body, _ := io.ReadAll(r.Body)
	var req request
	if len(body) > 0 && json.Unmarshal(body, &req) != nil {
		http.Error(w, "no JSON", http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bodies[method] = string(body)
	if !strings.Contains(method, "Get") && method != "Plugin.Activate" {
		p.calls = append(p.calls, method[strings.Index(method, ".")+1:])
	}
	do := p.methods()[method]
	if do == nil {
		http.NotFound(w, r)
		return
	}
	answer, err := any(nil), error(nil)
	if refusal := p.Refuse[method]; refusal != "" {
		err = fmt.Errorf("%s", refusal)
	} else {
		answer, err = do(req)
	}
	field := "Err"
	if strings.HasPrefix(method, "IpamDriver.") {
		field = "Error"
	}
	switch {
	case err != nil:
		answer = map[string]string{field: err.Error()}
	case answer == nil:
		answer = struct{}{}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

type object = map[string]any

func (p *Plugin) methods() map[string]func(request) (any, error) {
	return map[string]func(request) (any, error){
		"Plugin.Activate": func(request) (any, error) {
			return object{"Implements": []string{"NetworkDriver", "IpamDriver"}}, nil
		},
		"NetworkDriver.GetCapabilities": func(request) (any, error) {
			return object{"Scope": map[bool]string{true: "local", false: p.Scope}[p.Scope == ""]}, nil
		},
		"NetworkDriver.CreateNetwork": p.createNetwork, "NetworkDriver.DeleteNetwork": p.deleteNetwork,
		"NetworkDriver.CreateEndpoint": p.createEndpoint, "NetworkDriver.DeleteEndpoint": p.deleteEndpoint,
		"NetworkDriver.EndpointOperInfo": func(request) (any, error) { return object{"Value": object{}}, nil },
		"NetworkDriver.Join":             p.join, "NetworkDriver.Leave": p.leave,
		"NetworkDriver.ProgramExternalConnectivity": func(request) (any, error) { return nil, nil },
		"NetworkDriver.RevokeExternalConnectivity":  func(request) (any, error) { return nil, nil },
		"IpamDriver.GetDefaultAddressSpaces": func(request) (any, error) {
			return object{"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}, nil
		},
		"IpamDriver.RequestPool": p.requestPool, "IpamDriver.ReleasePool": p.releasePool,
		"IpamDriver.RequestAddress": p.requestAddress, "IpamDriver.ReleaseAddress": p.releaseAddress,
	}
}

func bridgeName(networkID string) string { return "rb" + networkID[:10] }

func (p *Plugin) createNetwork(r request) (any, error) {
	if _, there := p.networks[r.NetworkID]; there {
		return nil, fmt.Errorf("network %s exists", r.NetworkID)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName(r.NetworkID)
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return nil, err
	}
	gateway := ""
	for _, d := range r.IPv4Data {
		if a, err := netlink.ParseAddr(d.Gateway); err == nil {
			gateway = a.IP.String()
			if err := netlink.AddrAdd(bridge, a); err != nil {
				return nil, err
			}
		}
	}
	p.networks[r.NetworkID] = gateway
	return nil, netlink.LinkSetUp(bridge)
}

func (p *Plugin) deleteNetwork(r request) (any, error) {
	if _, there := p.networks[r.NetworkID]; !there {
		return nil, fmt.Errorf("network %s is unknown", r.NetworkID)
	}
	bridge, err := netlink.LinkByName(bridgeName(r.NetworkID))
	if err == nil {
		err = netlink.LinkDel(bridge)
	}
	delete(p.networks, r.NetworkID)
	return nil, err
}

func (p *Plugin) createEndpoint(r request) (any, error) {
	if _, there := p.networks[r.NetworkID]; !there {
		return nil, fmt.Errorf("network %s is unknown", r.NetworkID)
	}
	p.endpoints[r.EndpointID] = true
	return object{"Interface": object{}}, nil
}

func (p *Plugin) deleteEndpoint(r request) (any, error) {
	if !p.endpoints[r.EndpointID] {
		return nil, fmt.Errorf("endpoint %s is unknown", r.EndpointID)
	}
	delete(p.endpoints, r.EndpointID)
	return nil, nil
}

func (p *Plugin) join(r request) (any, error) {
	bridge, err := netlink.LinkByName(bridgeName(r.NetworkID))
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = "rh"+r.EndpointID[:10], bridge.Attrs().Index
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "rc" + r.EndpointID[:10]}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, err
	}
	return object{
		"InterfaceName": object{"SrcName": pair.PeerName, "DstPrefix": "net"},
		"Gateway":       p.networks[r.NetworkID],
		"StaticRoutes":  []object{{"Destination": "192.0.2.0/24", "RouteType": 1}},
	}, netlink.LinkSetUp(pair)
}

func (p *Plugin) leave(r request) (any, error) {
	if pair, err := netlink.LinkByName("rh" + r.EndpointID[:10]); err == nil {
		_ = netlink.LinkDel(pair) // it may go with the container at this moment
	}
	return nil, nil
}

func (p *Plugin) requestPool(r request) (any, error) {
	for i := 0; r.Pool == "" && i < 256; i++ {
		if candidate := fmt.Sprintf("10.66.%d.0/24", i); !p.pools[candidate] {
			r.Pool = candidate
		}
	}
	if r.V6 {
		return nil, fmt.Errorf("no IPv6 here")
	}
	p.pools[r.Pool] = true
	return object{"PoolID": r.Pool, "Pool": r.Pool}, nil
}

func (p *Plugin) releasePool(r request) (any, error) {
	if !p.pools[r.PoolID] {
		return nil, fmt.Errorf("pool %s is unknown", r.PoolID)
	}
	delete(p.pools, r.PoolID)
	return nil, nil
}

func (p *Plugin) requestAddress(r request) (any, error) {
	pool, err := netip.ParsePrefix(r.PoolID)
	if err != nil {
		return nil, err
	}
	a := pool.Addr().Next()
	if r.Address != "" {
		if a, err = netip.ParseAddr(r.Address); err != nil || p.given[a] {
			return nil, fmt.Errorf("address %s is in use", r.Address)
		}
	}
	for p.given[a] {
		a = a.Next()
	}
	p.given[a] = true
	return object{"Address": netip.PrefixFrom(a, pool.Bits()).String()}, nil
}

func (p *Plugin) releaseAddress(r request) (any, error) {
	a, err := netip.ParseAddr(r.Address)
	if err != nil || !p.given[a] {
		return nil, fmt.Errorf("address %s was not given out", r.Address)
	}
	delete(p.given, a)
	return nil, nil
}

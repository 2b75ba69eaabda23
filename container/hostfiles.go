package container

import (
	"net/netip"
	"os"
	"path/filepath"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/network"
)

// writeHostFiles writes hosts, hostname and resolv.conf beside the record, as
// they are written anew by each start, and puts their paths into in. A
// container that joins another's network gets the files of the network's owner.
func (b *bundle) writeHostFiles(in *spec.Input) error {
	r, s := b.r, b.containers
	if r.HostConfig.NetworkMode.IsContainer() {
		owner, err := s.store.networkOwner(*r)
		if err != nil {
			return err
		}
		s.store.hostFiles(owner.ID, in)
		return nil
	}
	s.store.hostFiles(r.ID, in)
	if err := os.WriteFile(in.Hostname, []byte(in.UTSName+"\n"), 0o644); err != nil {
		return err
	}
	hosts, err := b.hosts(in.UTSName)
	if err != nil {
		return err
	}
	if err := os.WriteFile(in.Hosts, hosts, 0o644); err != nil {
		return err
	}
	resolv, err := resolvConf(r.HostConfig, s.cfg.Defaults.get())
	if err != nil {
		return err
	}
	return os.WriteFile(in.ResolvConf, resolv, 0o644)
}

// networkOwner is the container whose network r is in: its own, or that of
// the one it joins, which may itself have joined another's. There are no rings,
// as a container can only join one that was made before it.
func (s *store) networkOwner(r Record) (Record, error) {
	for r.HostConfig.NetworkMode.IsContainer() {
		other, err := s.find(r.HostConfig.NetworkMode.ConnectedContainer())
		if err != nil {
			return Record{}, err
		}
		r = other
	}
	return r, nil
}

// hostFiles puts the paths of a container's files into in.
func (s *store) hostFiles(id string, in *spec.Input) {
	dir := s.path(id) // on disk: a container may write them, and the exec root is memory
	in.Hosts, in.Hostname, in.ResolvConf = filepath.Join(dir, "hosts"), filepath.Join(dir, "hostname"), filepath.Join(dir, "resolv.conf")
}

func (b *bundle) hosts(name string) ([]byte, error) {
	r := b.r
	file := network.HostsFile{Extra: r.HostConfig.ExtraHosts, HostGateways: b.containers.cfg.hostGateways(),
		Hostname: name, Domainname: r.Config.Domainname}
	if r.HostConfig.NetworkMode.IsHost() {
		base, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		file.Base = append([]byte{}, base...)
	}
	if len(r.Links) > 0 {
		aliases, targets, err := b.containers.links.targets(r)
		if err != nil {
			return nil, err
		}
		file.Links = linkHosts(aliases, targets)
	}
	if b.net.sandbox != nil {
		file.Address = b.net.sandbox.Endpoints[0].Address.Addr()
	}
	return network.Hosts(file)
}

// hostGateways are the addresses that host-gateway stands for.
func (c *Config) hostGateways() []netip.Addr {
	if given := c.Defaults.get().HostGateways; len(given) > 0 {
		return given
	}
	return []netip.Addr{c.Networks.Gateway()}
}

// resolvConf is the container's file: each list that it does not ask for is the
// daemon's, and else the host's.
func resolvConf(h *wire.HostConfig, daemon *Settings) ([]byte, error) {
	host, err := network.HostResolvConf()
	if err != nil {
		return nil, err
	}
	dns, search, options := h.DNS, h.DNSSearch, h.DNSOptions
	if len(dns) == 0 {
		dns = daemon.DNS
	}
	if len(search) == 0 {
		search = daemon.DNSSearch
	}
	if len(options) == 0 {
		options = daemon.DNSOptions
	}
	if h.NetworkMode.IsHost() {
		return network.ResolvConfHostMode(host, addresses(dns), search, options), nil
	}
	return network.ResolvConf(host, addresses(dns), search, options), nil
}

func addresses(list []netip.Addr) []string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

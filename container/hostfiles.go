package container

import (
	"net/netip"
	"os"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/files"
)

// writeHostFiles writes hosts, hostname and resolv.conf beside the record, as
// they are written anew by each start, and puts their paths into in. A
// container that joins another's network gets the files of the network's owner.
func (b *bundle) writeHostFiles(in *spec.Input) error {
	r, s := b.r, b.containers
	if r.HostConfig.NetworkMode.IsContainer() {
		owner, err := s.store.NetworkOwner(*r)
		if err != nil {
			return err
		}
		s.store.HostFiles(owner.ID, in)
		return nil
	}
	s.store.HostFiles(r.ID, in)
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
	resolv, err := resolvConf(r.HostConfig, s.cfg.Defaults.Get(), b.net.sandbox)
	if err != nil {
		return err
	}
	return os.WriteFile(in.ResolvConf, resolv, 0o644)
}

func (b *bundle) hosts(name string) ([]byte, error) {
	r := b.r
	file := files.HostsFile{Extra: r.HostConfig.ExtraHosts, HostGateways: b.containers.cfg.hostGateways(),
		Hostname: name, Domainname: r.Config.Domainname, NoIPv6: r.HostConfig.Sysctls["net.ipv6.conf.all.disable_ipv6"] == "1"}
	if r.HostConfig.NetworkMode.IsHost() {
		base, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		file.Base = append([]byte{}, base...)
	}
	var err error
	if file.Links, err = b.containers.links.Hosts(r); err != nil {
		return nil, err
	}
	if b.net.sandbox != nil {
		for i := range b.net.sandbox.Endpoints {
			file.Addresses = append(file.Addresses, ownAddresses(&b.net.sandbox.Endpoints[i])...)
		}
	}
	return files.Hosts(file)
}

// ownAddresses are those of the endpoint that have names in the hosts file.
func ownAddresses(e *network.Endpoint) (list []netip.Addr) {
	for _, p := range []netip.Prefix{e.Address, e.Address6} {
		if p.IsValid() {
			list = append(list, p.Addr())
		}
	}
	return list
}

// hostGateways are the addresses that host-gateway stands for.
func (c *Config) hostGateways() []netip.Addr {
	if given := c.Defaults.Get().HostGateways; len(given) > 0 {
		return given
	}
	list := []netip.Addr{c.Networks.Gateway()}
	if v6 := c.Networks.Gateway6(); v6.IsValid() {
		list = append(list, v6)
	}
	return list
}

// resolver is what the container asks of its name resolution: each list that it
// leaves open is the daemon's, and else the host's.
func resolver(h *wire.HostConfig, daemon *create.Settings) network.Resolver {
	r := network.Resolver{Servers: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions}
	if len(r.Servers) == 0 {
		r.Servers = daemon.DNS
	}
	if len(r.Search) == 0 {
		r.Search = daemon.DNSSearch
	}
	if len(r.Options) == 0 {
		r.Options = daemon.DNSOptions
	}
	return r
}

// resolvConf is the container's file on the networks of b, nil for none.
func resolvConf(h *wire.HostConfig, daemon *create.Settings, b *network.Sandbox) ([]byte, error) {
	host, err := files.HostResolvConf()
	if err != nil {
		return nil, err
	}
	r := resolver(h, daemon)
	dns := addresses(r.Servers)
	switch {
	case h.NetworkMode.IsHost():
		return files.ResolvConfHostMode(host, dns, r.Search, r.Options), nil
	case hasNames(b):
		return files.ResolvConfNames(host, dns, r.Search, r.Options), nil
	}
	return files.ResolvConf(host, dns, r.Search, r.Options, b != nil && b.Gateway6() != nil), nil
}

// hasNames tells whether one of the networks has a resolver for its names.
func hasNames(b *network.Sandbox) bool {
	return b != nil && b.HasNames()
}

func addresses(list []netip.Addr) []string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

package container

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
)

// wantedPorts lists the ports to publish, in the order of their numbers.
func wantedPorts(bindings wirenet.PortMap, exposed wirenet.PortSet, all bool) ([]network.Port, error) {
	var list []network.Port
	for port, hosts := range bindings {
		if len(hosts) == 0 {
			hosts = []wirenet.PortBinding{{}}
		}
		for _, b := range hosts {
			p := network.Port{HostIP: b.HostIP, ContainerPort: port.Num(), Proto: string(port.Proto())}
			var err error
			if p.HostPort, p.HostPortEnd, err = portRange(b.HostPort); err != nil {
				return nil, err
			}
			list = append(list, p)
		}
	}
	if all {
		for port := range exposed {
			if _, bound := bindings[port]; !bound {
				list = append(list, network.Port{ContainerPort: port.Num(), Proto: string(port.Proto())})
			}
		}
	}
	slices.SortFunc(list, func(a, b network.Port) int {
		if c := strings.Compare(a.Proto, b.Proto); c != 0 {
			return c
		}
		if a.ContainerPort != b.ContainerPort {
			return int(a.ContainerPort) - int(b.ContainerPort)
		}
		return int(a.HostPort) - int(b.HostPort)
	})
	return list, nil
}

// portRange reads "", "8080" or "8000-8010".
func portRange(s string) (first, last uint16, err error) {
	if s == "" {
		return 0, 0, nil
	}
	from, to, isRange := strings.Cut(s, "-")
	a, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return 0, 0, fault.New(fault.Invalid, "invalid port specification: %q", s)
	}
	if !isRange {
		return uint16(a), 0, nil
	}
	b, err := strconv.ParseUint(to, 10, 16)
	if err != nil || b < a {
		return 0, 0, fault.New(fault.Invalid, "invalid port specification: %q", s)
	}
	return uint16(a), uint16(b), nil
}

// portMap is the published ports as inspect shows them: exposed ports that
// are not published have no binding.
func portMap(r Record) wirenet.PortMap {
	m := wirenet.PortMap{}
	if r.Sandbox == nil || len(r.Sandbox.Endpoints) == 0 {
		return m
	}
	for p := range r.Config.ExposedPorts {
		m[p] = nil
	}
	for _, p := range r.Sandbox.Ports {
		key, _ := wirenet.PortFrom(p.ContainerPort, wirenet.IPProtocol(p.Proto))
		binding := wirenet.PortBinding{HostIP: anyIP(p.HostIP)}
		if p.HostPort != 0 { // none where the container itself is reached
			binding.HostPort = strconv.Itoa(int(p.HostPort))
		}
		m[key] = append(m[key], binding)
	}
	return m
}

func anyIP(a netip.Addr) netip.Addr {
	if !a.IsValid() {
		return netip.IPv4Unspecified()
	}
	return a
}

// portSummaries is the published ports as list shows them.
func portSummaries(r Record) []wire.PortSummary {
	list := []wire.PortSummary{}
	if r.Sandbox == nil {
		return list
	}
	published := map[string]bool{}
	for _, p := range r.Sandbox.Ports {
		published[fmt.Sprintf("%d/%s", p.ContainerPort, p.Proto)] = true
		list = append(list, wire.PortSummary{IP: anyIP(p.HostIP), PrivatePort: p.ContainerPort, PublicPort: p.HostPort, Type: p.Proto})
	}
	for p := range r.Config.ExposedPorts {
		if !published[p.String()] {
			list = append(list, wire.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(list, func(a, b wire.PortSummary) int {
		if a.PrivatePort != b.PrivatePort {
			return int(a.PrivatePort) - int(b.PrivatePort)
		}
		if a.PublicPort != b.PublicPort {
			return int(a.PublicPort) - int(b.PublicPort)
		}
		return strings.Compare(a.Type, b.Type)
	})
	return list
}

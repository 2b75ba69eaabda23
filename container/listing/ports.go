package listing

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/record"
)

// portMap is the published ports as inspect shows them: exposed ports that
// are not published have no binding.
func portMap(r record.Record) wirenet.PortMap {
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
func portSummaries(r record.Record) []wire.PortSummary {
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

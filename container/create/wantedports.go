package create

import (
	"slices"
	"strconv"
	"strings"

	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
)

// Ports lists the ports to publish, in the order of their numbers.
func Ports(bindings wirenet.PortMap, exposed wirenet.PortSet, all bool) ([]network.Port, error) {
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

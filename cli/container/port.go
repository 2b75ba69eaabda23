package container

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Port is the command port.
func Port() *command.Command {
	return &command.Command{
		Usage: "CONTAINER [PRIVATE_PORT[/PROTO]]", MinArgs: 1, MaxArgs: 2, Flags: command.NewFlags(), Example: "tare port web 80/tcp",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			state, err := cl.ContainerInspect(ctx, args[0])
			if err != nil {
				return err
			}
			if len(args) == 2 {
				return onePort(s, state.NetworkSettings.Ports, args[0], args[1])
			}
			for _, port := range sortedPorts(state.NetworkSettings.Ports) {
				for _, b := range state.NetworkSettings.Ports[port] {
					fmt.Fprintf(s.Out, "%s -> %s\n", port, net.JoinHostPort(b.HostIp, b.HostPort))
				}
			}
			return nil
		},
	}
}

func onePort(s *command.Session, ports map[string][]client.PortBinding, name, port string) error {
	number, proto := cutProto(port)
	if _, err := parsePort(number); err != nil {
		return fault.New(fault.Invalid, "Error: invalid port (%s)", number)
	}
	bindings := ports[number+"/"+proto]
	if len(bindings) == 0 {
		return fault.New(fault.NotFound, "Error: No public port '%s' published for %s", port, name)
	}
	for _, b := range bindings {
		fmt.Fprintln(s.Out, net.JoinHostPort(b.HostIp, b.HostPort))
	}
	return nil
}

// sortedPorts orders ports by number, then protocol.
func sortedPorts(ports map[string][]client.PortBinding) []string {
	names := make([]string, 0, len(ports))
	for port := range ports {
		names = append(names, port)
	}
	slices.SortFunc(names, func(a, b string) int {
		an, ap, _ := strings.Cut(a, "/")
		bn, bp, _ := strings.Cut(b, "/")
		x, _ := strconv.Atoi(an)
		y, _ := strconv.Atoi(bn)
		if x != y {
			return x - y
		}
		return strings.Compare(ap, bp)
	})
	return names
}

package network

import (
	"context"
	"net"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Connect is the command network connect.
func Connect() *command.Command {
	f := command.NewFlags()
	o := &connect{}
	f.StringVar(&o.ip, "ip", "", `IPv4 address (e.g., "172.30.100.104")`)
	f.StringVar(&o.ip6, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
	f.StringVar(&o.mac, "mac-address", "", "MAC address for the container on this network")
	f.IntVar(&o.priority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	o.links = option.NewList(f, "link", "", "Add link to another container", nil)
	o.aliases = option.NewList(f, "alias", "", "Add network-scoped alias for the container", nil)
	o.linkLocal = option.NewList(f, "link-local-ip", "", "Add a link-local address for the container", nil)
	o.opts = option.NewList(f, "driver-opt", "", "driver options for the network", nil)
	o.rates = option.NewRates(f, false)
	return &command.Command{Usage: "[OPTIONS] NETWORK CONTAINER", MinArgs: 2, MaxArgs: 2, Flags: f,
		Example: "tare network connect --alias db backend postgres", Run: o.run}
}

type connect struct {
	ip, ip6, mac                    string
	priority                        int
	links, aliases, linkLocal, opts *option.List
	rates                           *option.Rates
}

func (o *connect) run(ctx context.Context, s *command.Session, args []string) error {
	e, err := o.settings()
	if err != nil {
		return err
	}
	cl, err := s.Client()
	if err != nil {
		return err
	}
	return cl.NetworkConnect(ctx, args[0], args[1], e)
}

func (o *connect) settings() (*client.EndpointSettings, error) {
	e := &client.EndpointSettings{Links: o.links.Values, Aliases: commas(o.aliases), GwPriority: o.priority, MacAddress: o.mac, DriverOpts: o.rates.Options("")}
	if o.mac != "" {
		if _, err := net.ParseMAC(o.mac); err != nil {
			return nil, fault.New(fault.Invalid, "invalid MAC address: %q", o.mac)
		}
	}
	e.IPAMConfig = &client.EndpointIPAMConfig{IPv4Address: o.ip, IPv6Address: o.ip6, LinkLocalIPs: commas(o.linkLocal)}
	for flag, text := range map[string]string{"ip": o.ip, "ip6": o.ip6} {
		if text != "" && net.ParseIP(text) == nil {
			return nil, badAddress(flag, text)
		}
	}
	for _, text := range e.IPAMConfig.LinkLocalIPs {
		if net.ParseIP(text) == nil {
			return nil, badAddress("link-local-ip", text)
		}
	}
	for _, text := range commas(o.opts) {
		key, value, ok := strings.Cut(text, "=")
		if key = strings.TrimSpace(key); !ok || key == "" {
			return nil, fault.New(fault.Invalid, "invalid key/value pair format in driver options")
		}
		if e.DriverOpts == nil {
			e.DriverOpts = map[string]string{}
		}
		e.DriverOpts[key] = strings.TrimSpace(value)
	}
	return e, nil
}

func badAddress(flag, text string) error {
	return fault.New(fault.Invalid, "invalid argument %q for \"--%s\" flag: failed to parse IP: %q", text, flag, text)
}

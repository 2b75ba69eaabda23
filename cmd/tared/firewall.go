package main

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
)

// Whose rules count for published ports.
const (
	publishedAsDocker = "docker"                // they are open whatever the host's own firewall says
	publishedAsHost   = "respect-host-firewall" // its input rules decide
)

// firewallOptions are about who reaches whom.
type firewallOptions struct {
	Rules4        bool   `json:"iptables"`
	Rules6        bool   `json:"ip6tables"`
	Forward       bool   `json:"ip-forward"`
	UserlandProxy bool   `json:"userland-proxy"`
	DirectRouting bool   `json:"allow-direct-routing"`
	AcceptMark    string `json:"bridge-accept-fwmark"`
	Published     string `json:"published-ports"`

	mark, markMask uint32
}

func (o *firewallOptions) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.Rules4, "iptables", true, "Make rules in nftables; without, published ports are relayed, nobody is kept from anybody, and nobody leaves under the host's address")
	f.BoolVar(&o.Rules6, "ip6tables", true, "The same of IPv6")
	f.BoolVar(&o.Forward, "ip-forward", true, "Turn on the host's forwarding for containers")
	f.BoolVar(&o.UserlandProxy, "userland-proxy", true, "Publish on IPv6 for containers that have IPv4 alone; there is no proxy process, the supervising process relays")
	f.BoolVar(&o.DirectRouting, "allow-direct-routing", false, "Let others than this host reach published ports at the containers' own addresses")
	f.StringVar(&o.AcceptMark, "bridge-accept-fwmark", "", "Let packets with this mark, MARK or MARK/MASK, into any bridge network")
	f.StringVar(&o.Published, "published-ports", publishedAsDocker, `Whose rules count for published ports: "docker", they are open whatever the host's firewall says, or "respect-host-firewall", its input rules decide`)
}

func (o *firewallOptions) check() (err error) {
	switch o.Published {
	case "":
		o.Published = publishedAsDocker
	case publishedAsDocker, publishedAsHost:
	default:
		return fault.New(fault.Invalid, `invalid published-ports %q: want %q or %q`, o.Published, publishedAsDocker, publishedAsHost)
	}
	if o.Published == publishedAsHost && !(o.Rules4 && o.Rules6) {
		return fault.New(fault.Invalid, "published-ports %q is done by rules: leave it out, or --iptables=false and --ip6tables=false", publishedAsHost)
	}
	if o.AcceptMark == "" {
		return nil
	}
	if o.mark, o.markMask, err = parseMark(o.AcceptMark); err != nil {
		return fault.New(fault.Invalid, "invalid bridge-accept-fwmark %q: want a number of 32 bits, or two with a slash between them for the mark and its mask, such as 0x1/0xff", o.AcceptMark)
	}
	return nil
}

func parseMark(text string) (mark, mask uint32, err error) {
	value, of, masked := strings.Cut(text, "/")
	m, err := strconv.ParseUint(value, 0, 32)
	if err != nil {
		return 0, 0, err
	}
	full := uint64(1<<32 - 1)
	if masked {
		if full, err = strconv.ParseUint(of, 0, 32); err != nil {
			return 0, 0, err
		}
	}
	if full == 0 {
		return 0, 0, strconv.ErrRange
	}
	return uint32(m), uint32(full), nil
}

// apply puts them into the networks' configuration.
func (o *firewallOptions) apply(c *network.Config) {
	c.NoProxy, c.NoRules, c.NoRules6, c.NoForwarding = !o.UserlandProxy, !o.Rules4, !o.Rules6, !o.Forward
	c.DirectRouting, c.AcceptMark, c.AcceptMask = o.DirectRouting, o.mark, o.markMask
	c.HostFirewall = o.Published == publishedAsHost
}

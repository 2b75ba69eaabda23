// Package files writes what a container reads of its network: hosts(5) and
// resolv.conf(5). It knows text and addresses, and of the host its own
// resolv.conf.
package files

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"github.com/tarehq/tare/fault"
)

// HostsFile is what a container's /etc/hosts, hosts(5), is made of.
type HostsFile struct {
	// Base is the host's own file in host mode; without one the file begins
	// with the names of localhost.
	Base []byte
	// NoIPv6 leaves out the container's own names of IPv6.
	NoIPv6 bool
	// Extra are the entries asked for: name:address or name=address, where
	// the address may be host-gateway or stand in brackets.
	Extra []string
	// Links are the lines of linked containers.
	Links []HostsLine
	// HostGateways are what host-gateway stands for, with a line for each.
	HostGateways []netip.Addr
	// Addresses are the container's own, with a line each of OwnNames.
	Addresses            []netip.Addr
	Hostname, Domainname string
}

// HostsLine is one line of the file.
type HostsLine struct {
	Address netip.Addr
	Names   []string
}

const (
	localhostLine   = "127.0.0.1\tlocalhost\n"
	localhostLines6 = "::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n"
)

// Hosts writes the file. An entry that cannot be understood is fault.Invalid.
func Hosts(h HostsFile) ([]byte, error) {
	var b bytes.Buffer
	if h.Base == nil {
		b.WriteString(localhostLine)
		if !h.NoIPv6 {
			b.WriteString(localhostLines6)
		}
	} else {
		b.Write(h.Base)
		if len(h.Base) > 0 && !bytes.HasSuffix(h.Base, []byte("\n")) {
			b.WriteByte('\n')
		}
	}
	for _, entry := range h.Extra {
		name, addresses, err := parseExtraHost(entry, h.HostGateways)
		if err != nil {
			return nil, err
		}
		for _, addr := range addresses {
			fmt.Fprintf(&b, "%s\t%s\n", addr, name)
		}
	}
	for _, line := range h.Links {
		fmt.Fprintf(&b, "%s\t%s\n", line.Address, strings.Join(line.Names, " "))
	}
	if names := OwnNames(h.Hostname, h.Domainname); names != "" {
		for _, addr := range h.Addresses {
			if h.NoIPv6 && addr.Is6() {
				continue
			}
			fmt.Fprintf(&b, "%s\t%s\n", addr, names)
		}
	}
	return b.Bytes(), nil
}

// OwnNames are a container's own names in the file: its host name, qualified by
// the domain if that is set, and the first part alone.
func OwnNames(hostname, domainname string) string {
	if hostname != "" && domainname != "" {
		return hostname + "." + domainname + " " + hostname
	}
	if short, _, qualified := strings.Cut(hostname, "."); qualified {
		return hostname + " " + short
	}
	return hostname
}

func parseExtraHost(entry string, gateways []netip.Addr) (name string, addresses []netip.Addr, err error) {
	// Whichever separator comes first: an IPv6 address holds colons too.
	i := strings.IndexAny(entry, "=:")
	if i <= 0 || strings.ContainsAny(entry, " \t\r\n") {
		return "", nil, fault.New(fault.Invalid, "bad format for add-host: %q", entry)
	}
	name, value := entry[:i], entry[i+1:]
	if value == "host-gateway" {
		if len(gateways) == 0 || !gateways[0].IsValid() {
			return "", nil, fault.New(fault.Invalid, "unable to derive the IP value for host-gateway")
		}
		return name, gateways, nil
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(value, "["), "]"))
	if err != nil {
		return "", nil, fault.New(fault.Invalid, "invalid IP address in add-host: %q", value)
	}
	return name, []netip.Addr{addr}, nil
}

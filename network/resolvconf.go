package network

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

// The host's resolver files, resolv.conf(5) and systemd-resolved(8).
const (
	resolvConfPath    = "/etc/resolv.conf"
	resolvedUplinks   = "/run/systemd/resolve/resolv.conf"
	resolvedStub      = "127.0.0.53"
	resolvedStubExtra = "127.0.0.54"
)

// HostResolvConf reads the host's resolv.conf for containers that have a
// network of their own: where it names only systemd-resolved's stub, the file
// in which systemd-resolved lists its own servers. A host without the file has
// an empty one.
func HostResolvConf() ([]byte, error) { return readResolvConf(resolvConfPath, resolvedUplinks) }

func readResolvConf(path, uplinks string) ([]byte, error) {
	host, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the host's resolver configuration: %w", err)
	}
	c := parseResolvConf(host)
	stub := len(c.nameservers) > 0
	for _, n := range c.nameservers {
		stub = stub && (n == resolvedStub || n == resolvedStubExtra)
	}
	if !stub {
		return host, nil
	}
	direct, err := os.ReadFile(uplinks)
	if err != nil {
		// The stub is somebody else's then; ResolvConf drops it.
		return host, nil
	}
	return direct, nil
}

// resolverConfig is what a container's resolv.conf is made of.
type resolverConfig struct {
	nameservers, search, options []string
}

// parseResolvConf reads what the resolver would: the last search or domain
// line, all others together.
func parseResolvConf(b []byte) resolverConfig {
	var c resolverConfig
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		if len(words) < 2 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], ";") {
			continue
		}
		switch words[0] {
		case "nameserver":
			c.nameservers = append(c.nameservers, words[1])
		case "search":
			c.search = words[1:]
		case "domain":
			c.search = words[1:2]
		case "options":
			c.options = append(c.options, words[1:]...)
		}
	}
	return c
}

// override replaces each list that was asked for.
func (c *resolverConfig) override(dns, search, options []string) {
	if len(dns) > 0 {
		c.nameservers = dns
	}
	if len(search) > 0 {
		c.search = search
	}
	if len(options) > 0 {
		c.options = options
	}
}

// ResolvConf writes resolv.conf for a container on the default bridge, from
// the host's and from what was asked for, which replaces the host's. Servers
// of the host that a container cannot reach are left out: those on loopback
// addresses, and those of IPv6, which the bridge does not carry. No server is
// made up in their place.
func ResolvConf(host []byte, dns, search, options []string) []byte {
	c := parseResolvConf(host)
	reachable := c.nameservers[:0]
	for _, n := range c.nameservers {
		// A zone names an interface of the host.
		if addr, err := netip.ParseAddr(n); err == nil && addr.Unmap().Is4() && !addr.Unmap().IsLoopback() {
			reachable = append(reachable, n)
		}
	}
	c.nameservers = reachable
	c.override(dns, search, options)
	return c.bytes()
}

// ResolvConfHostMode writes resolv.conf for a container that shares the host's
// network: the host's file as it is unless something was asked for.
func ResolvConfHostMode(host []byte, dns, search, options []string) []byte {
	if len(dns)+len(search)+len(options) == 0 {
		return host
	}
	c := parseResolvConf(host)
	c.override(dns, search, options)
	return c.bytes()
}

func (c resolverConfig) bytes() []byte {
	var b bytes.Buffer
	if len(c.nameservers) == 0 {
		b.WriteString("# no name server of this host can be reached from a container; name one with --dns\n")
	}
	for _, n := range c.nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", n)
	}
	// A lone "." asks for no search list at all.
	if len(c.search) > 0 && !(len(c.search) == 1 && c.search[0] == ".") {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.search, " "))
	}
	if len(c.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.options, " "))
	}
	return b.Bytes()
}

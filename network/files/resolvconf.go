package files

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
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
// addresses, and without ipv6 those of IPv6, which the bridge does not carry then.
// No server is made up in their place.
func ResolvConf(host []byte, dns, search, options []string, ipv6 bool) []byte {
	c := parseResolvConf(host)
	reachable := c.nameservers[:0]
	for _, n := range c.nameservers {
		// A zone names an interface of the host.
		if addr, err := netip.ParseAddr(n); err == nil && addr.Zone() == "" && (ipv6 || addr.Unmap().Is4()) && !addr.Unmap().IsLoopback() {
			reachable = append(reachable, n)
		}
	}
	c.nameservers = reachable
	c.override(dns, search, options)
	return c.bytes()
}

// ResolverAddress is where a container on a user-defined network finds the
// resolver that knows the names there.
var ResolverAddress = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// ResolvConfNames writes resolv.conf for a container on a user-defined network:
// the names there are the resolver's to know, which asks the servers for all
// others. A name without a dot may be one of them, so it is tried as it is first
// unless the options say otherwise.
func ResolvConfNames(host []byte, dns, search, options []string) []byte {
	c := parseResolvConf(host)
	c.nameservers = nil
	c.override(nil, search, options)
	from := "the host's"
	if len(dns) > 0 {
		from = strings.Join(dns, " ")
	}
	c.nameservers = []string{ResolverAddress.String()}
	if !slices.ContainsFunc(c.options, func(o string) bool { return strings.HasPrefix(o, "ndots:") && len(options) > 0 }) {
		c.options = slices.DeleteFunc(slices.Clone(c.options), func(o string) bool { return strings.HasPrefix(o, "ndots:") })
		c.options = append(c.options, "ndots:0")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by tared when the container started or joined a network: a change here lasts until then.\n"+
		"# The names of the container's networks are answered here, all others by the servers below.\n"+
		"# ExtServers: [%s]\n", from)
	b.Write(c.bytes())
	return b.Bytes()
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

// NameServers are the servers that a resolv.conf names, as they stand there.
func NameServers(conf []byte) []string { return parseResolvConf(conf).nameservers }

// Options are those that a resolv.conf sets.
func Options(conf []byte) []string { return parseResolvConf(conf).options }

package hosts

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/tarehq/tare/fault"
)

// Insecure says which hosts may speak plain HTTP or have certificates that
// nobody vouches for.
type Insecure struct {
	hosts    map[string]bool // "host" or "host:port", in lower case
	prefixes []netip.Prefix
}

// ReadInsecure reads the entries of dockerd's insecure-registries.
func ReadInsecure(entries []string) (Insecure, error) {
	l := Insecure{hosts: map[string]bool{}}
	for _, entry := range entries {
		host, prefix, err := ParseInsecure(entry)
		if err != nil {
			return l, err
		}
		if prefix.IsValid() {
			l.prefixes = append(l.prefixes, prefix)
		} else {
			l.hosts[strings.ToLower(host)] = true
		}
	}
	return l, nil
}

// ParseInsecure reads an entry of dockerd's insecure-registries: a CIDR, or a
// host with or without a port. Errors are dockerd's.
func ParseInsecure(entry string) (host string, prefix netip.Prefix, err error) {
	if prefix, err := netip.ParsePrefix(entry); err == nil {
		return "", prefix.Masked(), nil
	}
	if addr, err := netip.ParseAddr(entry); err == nil && addr.Is6() && addr.Zone() == "" { // which needs brackets to be a host
		return "", netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	for _, scheme := range []string{"http://", "https://"} {
		if len(entry) > len(scheme) && strings.EqualFold(entry[:len(scheme)], scheme) {
			entry = entry[len(scheme):]
			break
		}
	}
	if strings.Contains(entry, "://") {
		return "", netip.Prefix{}, fault.New(fault.Invalid, "insecure registry %s should not contain '://'", entry)
	}
	u, err := url.Parse("//" + entry)
	if err != nil || u.Host == "" || u.Host != entry || u.Hostname() == "" || u.User != nil || strings.HasPrefix(entry, "-") {
		return "", netip.Prefix{}, fault.New(fault.Invalid, "insecure registry %s is not valid: want a host, host:port or CIDR", entry)
	}
	return entry, netip.Prefix{}, nil
}

// ParseMirror reads an entry of dockerd's registry-mirrors: an http or https
// URL without user, query and fragment. A path is a prefix before /v2/.
func ParseMirror(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, fault.New(fault.Invalid, "invalid mirror: %q is not a valid URI", text)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fault.New(fault.Invalid, "invalid mirror: unsupported scheme %q in %q: must use either 'https://' or 'http://'", u.Scheme, text)
	case u.Host == "":
		return nil, fault.New(fault.Invalid, "invalid mirror: %q names no host", text)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fault.New(fault.Invalid, "invalid mirror: query or fragment at end of the URI %q", text)
	case u.User != nil:
		u.User = url.UserPassword(u.User.Username(), "xxxxx")
		return nil, fault.New(fault.Invalid, "invalid mirror: username/password not allowed in URI %q", u)
	}
	return u, nil
}

// Named tells whether the administrator has listed the host, by name or by the
// address that it is.
func (l Insecure) Named(host string) bool {
	host = strings.ToLower(host)
	name := hostname(host)
	if l.hosts[host] || l.hosts[name] {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && l.contains(addr)
}

func (l Insecure) contains(addr netip.Addr) bool {
	for _, p := range l.prefixes {
		if p.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// HasRanges tells whether there are ranges of addresses, which names may lead into.
func (l Insecure) HasRanges() bool { return len(l.prefixes) > 0 }

// Resolves tells whether the host's name leads into a listed range.
func (l Insecure) Resolves(ctx context.Context, host string) bool {
	if !l.HasRanges() {
		return false
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", hostname(host))
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if l.contains(a) {
			return true
		}
	}
	return false
}

// Loopback tells whether the host is this machine by its very name: what a name
// server says about others does not count.
func Loopback(host string) bool {
	name := hostname(host)
	addr, err := netip.ParseAddr(name)
	return strings.EqualFold(name, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// hostname cuts the port and the brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

package network

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/netip"
	"strconv"
	"time"

	wire "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/ipam"
	"github.com/tarehq/tare/network/link"
)

// The networks that always exist, and their drivers.
const (
	networkBridge = "bridge"
	networkHost   = "host"
	networkNone   = "none"
	driverNull    = "null"
)

// predefinedNames are told in this order, from the last.
var predefinedNames = []string{networkNone, networkHost, networkBridge}

const defaultMTU = 1500

// DefaultPools are Docker's: /16 networks from 172.17.0.0 to 172.31.0.0, then
// /20 networks in 192.168.0.0/16.
func DefaultPools() []ipam.Pool {
	cut := func(base string, size int) ipam.Pool { return ipam.Pool{Base: netip.MustParsePrefix(base), Size: size} }
	return []ipam.Pool{
		cut("172.17.0.0/16", 16), cut("172.18.0.0/15", 16), cut("172.20.0.0/14", 16),
		cut("172.24.0.0/14", 16), cut("172.28.0.0/14", 16), cut("192.168.0.0/16", 20),
	}
}

// completePools adds the default pools of a family that has none. That of IPv6
// is a unique local range of the host's own (RFC 4193), from which networks of
// 64 bits are cut.
func completePools(pools []ipam.Pool, hostID string) []ipam.Pool {
	has := map[bool]bool{}
	for _, p := range pools {
		has[p.Base.Addr().Is6()] = true
	}
	out := append([]ipam.Pool{}, pools...)
	if !has[false] {
		out = append(out, DefaultPools()...)
	}
	if !has[true] {
		sum := sha256.Sum256([]byte("unique local\x00" + hostID))
		b := [16]byte{0xfd}
		copy(b[1:6], sum[:]) // the global ID
		out = append(out, ipam.Pool{Base: netip.PrefixFrom(netip.AddrFrom16(b), 48), Size: 64})
	}
	return out
}

// predefinedID derives an ID, 64 hexadecimal digits, that is the same in each
// run of a daemon.
func (c *Config) predefinedID(name string) string {
	sum := sha256.Sum256([]byte(c.Identity + "\x00" + c.Bridge + "\x00" + name))
	return hex.EncodeToString(sum[:])
}

// place stands for the daemon among those of the host, as the name of its default
// bridge does; without one it follows from the identity.
func (c *Config) place() string {
	if c.Bridge != "" {
		return c.Bridge
	}
	sum := sha256.Sum256([]byte(c.Identity + "\x00" + c.Name))
	return "none-" + hex.EncodeToString(sum[:4])
}

// prefix begins the names of the daemon's ends of interface pairs.
func (c *Config) prefix() string { return link.Prefix(c.Identity, c.place()) }

// predefinedRecord describes host and none, and bridge but for its addresses.
func (c *Config) predefinedRecord(name string) record {
	n := wire.Network{
		Name: name, ID: c.predefinedID(name), Created: time.Now(), Scope: "local", Driver: name,
		EnableIPv4: true, IPAM: wire.IPAM{Driver: "default"},
		Options: map[string]string{}, Labels: map[string]string{},
	}
	switch name {
	case networkNone:
		n.Driver = driverNull
	case networkBridge:
		n.EnableIPv6 = c.IPv6
		n.Options = map[string]string{
			optionDefaultBridge: "true",
			optionICC:           strconv.FormatBool(!c.NoICC),
			optionMasquerade:    strconv.FormatBool(!c.NoMasquerade),
			optionBind4:         netip.IPv4Unspecified().String(),
			optionBridgeName:    c.Bridge,
			optionMTU:           strconv.Itoa(c.MTU),
		}
		if c.BindIP.IsValid() {
			n.Options[optionBind4] = c.BindIP.String()
		}
	}
	return record{Network: n}
}

// raiseDefault makes the networks that come with the daemon, and tells whether it
// made the bridge.
func (s *Service) raiseDefault() (made bool, err error) {
	for _, name := range []string{networkHost, networkNone} {
		s.lans.put(&lan{record: s.cfg.predefinedRecord(name), state: lanUp})
	}
	if s.cfg.Bridge == "" {
		return false, nil
	}
	l := &lan{record: s.cfg.predefinedRecord(networkBridge), state: lanUp}
	l.Bridge = s.cfg.Bridge
	options := maps.Clone(l.Options)
	delete(options, optionDefaultBridge)
	if l.opts, err = readBridgeOptions(options); err != nil {
		return false, err
	}
	if err := s.addressing.takeDefault(l, &s.cfg); err != nil {
		return false, err
	}
	b := s.raiser.bridgeOf(l)
	if made, err = b.raise(); err != nil {
		return made, err
	}
	l.Foreign = b.Foreign
	l.resume(s.store.cursors(l.ID))
	s.lans.put(l)
	s.lans.setBridge(l, b)
	return made, nil
}

// takeDefault takes the default bridge's: as configured, else of the address
// that the bridge has, else the first one that is free.
func (p *addressing) takeDefault(l *lan, c *Config) error {
	families := []struct {
		v6             bool
		family         int
		own, within    netip.Prefix
		router         netip.Addr
		flag, gateways string
	}{{false, unix.AF_INET, c.BIP, c.FixedCIDR, c.DefaultGateway, "--bip", defaultGateway4}}
	if c.IPv6 {
		families = append(families, families[0])
		f := &families[1]
		f.v6, f.family, f.own, f.within, f.router, f.flag, f.gateways = true, unix.AF_INET6, c.BIP6, c.FixedCIDR6, c.DefaultGateway6, "--bip6", defaultGateway6
	}
	for _, f := range families {
		config := wire.IPAMConfig{IPRange: f.within.Masked()}
		if f.own.IsValid() || f.within.IsValid() {
			l.Static = append(l.Static, f.own.Masked())
		}
		if !f.own.IsValid() {
			var err error
			if f.own, err = link.AddressOf(c.Bridge, f.family); err != nil {
				return err
			}
			// What an earlier run chose does not stand against what is asked for.
			if f.own.IsValid() && f.within.IsValid() && !f.own.Masked().Contains(f.within.Masked().Addr()) {
				f.own = netip.Prefix{}
			}
		}
		switch {
		case f.own.IsValid():
			config.Subnet, config.Gateway = f.own.Masked(), f.own.Addr()
			if !f.v6 && f.own.Bits() > 30 {
				return fault.New(fault.Conflict, "the address %s of the bridge %s leaves none for containers", f.own, c.Bridge)
			}
		case f.within.IsValid():
			config.Subnet = f.within.Masked()
		}
		if f.router.IsValid() {
			config.AuxAddress = map[string]netip.Addr{f.gateways: f.router}
		}
		config, n, err := p.takeSubnet(&l.opts, config, f.v6, true)
		if err != nil {
			return fault.New(fault.KindOf(err), "the default bridge gets no addresses: %w; name a free subnet by %s", err, f.flag)
		}
		l.nets = append(l.nets, n)
		l.IPAM.Config = append(l.IPAM.Config, config)
	}
	return nil
}

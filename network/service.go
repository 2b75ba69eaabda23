package network

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/ipam"
	"github.com/tarehq/tare/network/link"
)

// Service is the networks of a host with the containers on them. Its methods
// may be called at the same time.
type Service struct {
	cfg        Config
	store      store
	claim      *claim
	watch      *watch // from Restore on
	host       *link.Host
	addressing *addressing
	naming     naming
	events     *event.Log // nil for nobody

	mu       sync.Mutex // guards what follows; never held during I/O
	restored bool
	closed   bool

	working   keylock.Locks[string] // by sandbox
	sandboxes sandboxes
	lans      lans
	rules     *ruleset
	remover   *remover
	fitter    fitter
	pools     pools
	raiser    raiser
	planner   planner
	publisher publisher

	stop  context.CancelFunc
	tasks sync.WaitGroup
}

// Open makes the default bridge and, unless an earlier run left it, the table.
// What an earlier run left keeps working as it is until Restore.
func Open(ctx context.Context, c Config) (_ *Service, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg: c, naming: naming{c.Names}, events: c.Events,
	}
	s.sandboxes.open()
	s.lans.open(&s.sandboxes)
	prefix := c.prefix()
	s.rules = &ruleset{firewall: firewall.New(c.Name), options: c.rules([]string{prefix}), sandboxes: &s.sandboxes, segments: s.lans.segments, bridges: s.lans.raisedBridges}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	space, err := ipam.New(c.Pools)
	if err != nil {
		return nil, err
	}
	s.addressing = &addressing{space, c.IPAM}
	if s.store, err = openStore(c.Root); err != nil {
		return nil, err
	}
	if s.claim, err = claimBridge(ctx, c.place()); err != nil {
		return nil, err
	}
	if s.host, err = link.Open(prefix); err != nil {
		return nil, err
	}
	s.host.NewNS = c.NewNS
	s.remover = newRemover(s.host, s.rules.settle, s.saveCursors)
	s.fitter = fitter{host: s.host, lans: &s.lans, sandboxes: &s.sandboxes, rules: s.rules, remover: s.remover, drain: s.pools.drain}
	s.raiser = raiser{cfg: &s.cfg, host: s.host, lans: &s.lans, sandboxes: &s.sandboxes, rules: s.rules, remover: s.remover,
		pools: &s.pools, addressing: s.addressing, drivers: drivers{c.Drivers, c.Plugin}}
	s.planner = planner{&s.lans, &s.raiser.drivers, c.IPv6, c.NetworkOptions}
	s.publisher = publisher{&s.lans, &s.sandboxes, c.NoProxy}
	s.pools.fitter, s.pools.naming, s.pools.spares = &s.fitter, s.naming, c.Spare
	if c.HostFirewall {
		if err = firewall.AdmitDevices(); err != nil {
			return nil, err
		}
	}
	if err = s.load(ctx); err != nil {
		return nil, err
	}
	made, err := s.raiseDefault()
	if err != nil {
		return nil, err
	}
	if c.NoRules || c.NoRules6 { // those of a daemon that made them may be there
		err = s.rules.firewall.Clear(c.rules(nil))
	}
	if err == nil {
		err = s.rules.mend(nil)
	}
	if err != nil && made {
		_ = lowerBridge(c.Bridge)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// complete checks the configuration and fills in the defaults.
func (c *Config) complete() error {
	if err := checkInterfaceName(c.place()); err != nil {
		return fault.New(fault.Invalid, "invalid bridge name %q: it must have 1 to 15 characters, no slash and no space", c.Bridge)
	}
	if err := c.checkAddresses(); err != nil {
		return err
	}
	if c.MTU == 0 {
		c.MTU = defaultMTU
	}
	if c.MTU < 68 || c.MTU > 65535 {
		return fault.New(fault.Invalid, "invalid MTU %d: it must be between 68 and 65535", c.MTU)
	}
	if c.Name == "" {
		c.Name = "tare-" + c.place()
	}
	if c.Identity == "" {
		c.Identity = c.Name
	}
	if c.HostID == "" {
		c.HostID = c.Identity
	}
	c.Pools = completePools(c.Pools, c.HostID)
	return nil
}

// checkAddresses checks those of the default bridge.
func (c *Config) checkAddresses() error {
	if c.BIP.IsValid() && (!c.BIP.Addr().Is4() || c.BIP.Bits() > 30) {
		return fault.New(fault.Invalid, "invalid bridge address %s: an IPv4 address with a subnet of at most 30 bits is needed", c.BIP)
	}
	if c.BIP.IsValid() && (c.BIP.Addr() == c.BIP.Masked().Addr() || c.BIP.Addr() == ipam.Last(c.BIP)) {
		return fault.New(fault.Invalid, "invalid bridge address %s: that is the network's own or its broadcast address", c.BIP)
	}
	if c.BIP6.IsValid() && (!c.BIP6.Addr().Is6() || c.BIP6.Addr() == c.BIP6.Masked().Addr() || c.BIP6.Bits() > 126) {
		return fault.New(fault.Invalid, "invalid bridge address %s: an IPv6 address with a subnet of at most 126 bits is needed, not the subnet's own", c.BIP6)
	}
	for _, p := range []netip.Prefix{c.BIP6, c.FixedCIDR6} {
		if p.IsValid() {
			if err := checkSubnet6(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// Gateway is the default bridge's address: the containers' way out, and what
// host-gateway stands for; the zero Addr without a default bridge.
func (s *Service) Gateway() netip.Addr { return s.gateway(false) }

// Gateway6 is its IPv6 address, the zero Addr if it has none.
func (s *Service) Gateway6() netip.Addr { return s.gateway(true) }

func (s *Service) gateway(v6 bool) netip.Addr {
	if l := s.lans.named(networkBridge); l != nil {
		return l.own(v6).Addr()
	}
	return netip.Addr{} // not opened yet
}

// Close waits for the background work and discards the spare namespaces. The
// bridges, the table and the endpoints stay for the containers that run.
func (s *Service) Close(ctx context.Context) error {
	s.saveCursors() // while the addresses of those that wait are known as unused
	s.mu.Lock()
	wasClosed, stop := s.closed, s.stop
	s.closed = true
	s.mu.Unlock()
	s.pools.close(s.lans.all())
	if wasClosed {
		return nil
	}
	if stop != nil {
		stop()
		s.watch.close()
	}
	done := make(chan struct{})
	go func() {
		s.tasks.Wait()
		s.pools.wait()
		s.remover.finish()
		s.sandboxes.letGo()
		close(done)
	}()
	select {
	case <-done:
		s.release()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the removal of interfaces on %s: %w", s.cfg.place(), ctx.Err())
	}
}

// release closes what Open and Restore opened.
func (s *Service) release() {
	if s.watch != nil {
		s.watch.close()
	}
	s.rules.firewall.Close()
	if s.claim != nil {
		s.claim.release()
	}
	if s.host != nil {
		s.host.Close()
	}
}

package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewall"
)

// Service is the default bridge with its endpoints. Its methods may be called
// at the same time.
type Service struct {
	table    string
	identity string
	prefix   string // of its interfaces' names
	created  time.Time
	claim    *claim
	watch    *watch // from Restore on
	hostNS   *os.File
	routes   *routeConn // in the host's namespace
	bridge   bridge
	addrs    *addresses
	firewall *firewall.Firewall
	rulesFor firewall.Options
	relaying bool // IPv6 ports of containers that have IPv4 alone

	mu        sync.Mutex // guards what follows; never held during I/O
	sandboxes map[string]Sandbox
	restored  bool
	closed    bool
	doomed    []removal
	leaving   []firewall.Element  // of sandboxes that left, still in the table
	held      map[string]*os.File // the sandboxes' namespaces, by their ID

	rules    sync.Mutex // held while the table is changed
	removing sync.Mutex // held while interfaces are deleted

	spareCount int
	spare      chan *sandbox
	wake       chan struct{} // tells the remover that something happened
	stop       context.CancelFunc
	background sync.WaitGroup
}

// refillPause is how long after a spare sandbox was taken the next is made.
const refillPause = time.Millisecond

// Open makes the bridge and, unless an earlier run left it, the table. What an
// earlier run left keeps working as it is until Restore.
func Open(ctx context.Context, c Config) (_ *Service, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	s := &Service{
		table: c.Name, identity: c.Identity, prefix: interfacePrefix(c.Identity, c.Bridge), created: time.Now(),
		firewall: firewall.New(c.Name), sandboxes: map[string]Sandbox{}, held: map[string]*os.File{},
		spareCount: c.Spare, spare: make(chan *sandbox, max(c.Spare-1, 0)), wake: make(chan struct{}, 1),
	}
	s.rulesFor = firewall.Options{Table: c.Name, Ports: []string{s.prefix}}
	s.relaying = !c.NoProxy
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if s.claim, err = claimBridge(ctx, c.Bridge); err != nil {
		return nil, err
	}
	if s.hostNS, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	if s.routes, err = dialRoute(); err != nil {
		return nil, err
	}
	made := false
	if s.bridge, made, err = raiseBridge(c); err != nil {
		return nil, err
	}
	s.addrs = newAddresses(s.bridge.address)
	present, err := s.firewall.Whole()
	if err == nil && !present {
		err = s.firewall.Replace(s.wanted())
	}
	if err != nil && made {
		err = errors.Join(err, lowerBridge(c.Bridge))
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// complete checks the configuration and fills in the defaults.
func (c *Config) complete() error {
	if c.Bridge == "" || len(c.Bridge) >= unix.IFNAMSIZ || strings.ContainsAny(c.Bridge, "/ \t\n") || c.Bridge == "." || c.Bridge == ".." {
		return fault.New(fault.Invalid, "invalid bridge name %q: it must have 1 to 15 characters, no slash and no space", c.Bridge)
	}
	if c.BIP.IsValid() && (!c.BIP.Addr().Is4() || c.BIP.Bits() > 30) {
		return fault.New(fault.Invalid, "invalid bridge address %s: an IPv4 address with a subnet of at most 30 bits is needed", c.BIP)
	}
	if c.BIP.IsValid() && (c.BIP.Addr() == c.BIP.Masked().Addr() || c.BIP.Addr() == lastAddr(c.BIP)) {
		return fault.New(fault.Invalid, "invalid bridge address %s: that is the network's own or its broadcast address", c.BIP)
	}
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if c.MTU < 68 || c.MTU > 65535 {
		return fault.New(fault.Invalid, "invalid MTU %d: it must be between 68 and 65535", c.MTU)
	}
	if len(c.Pools) == 0 {
		c.Pools = DefaultPools()
	}
	if c.Name == "" {
		c.Name = "tare-" + c.Bridge
	}
	if c.Identity == "" {
		c.Identity = c.Name
	}
	return nil
}

// Restore takes up the sandboxes that live on from an earlier run, and must be
// called once before Attach, with none on a first run. It replaces the table
// in one transaction, so no packet meets a moment without rules, deletes the
// interfaces that no endpoint names, and starts to fill the pool. It is
// fault.Conflict when containers of another identity are on the bridge.
func (s *Service) Restore(ctx context.Context, sandboxes []Sandbox) error {
	if err := s.adopt(sandboxes); err != nil {
		return err
	}
	if err := s.refuseStrangers(ctx); err != nil {
		return err
	}
	watch, err := openWatch()
	if err != nil {
		return err
	}
	s.watch = watch
	s.rules.Lock()
	err = s.firewall.Replace(s.wanted())
	s.rules.Unlock()
	if err != nil {
		return err
	}
	orphans, err := s.reconcilePorts()
	if err != nil {
		return err
	}
	s.beginBackground(ctx, orphans)
	return nil
}

// beginBackground starts what removes interfaces and fills the pool. It
// outlives the call and ends with Close.
func (s *Service) beginBackground(ctx context.Context, orphans []removal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.restored = true
	s.doomed = append(s.doomed, orphans...)
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.background.Add(2)
	go s.removeDoomed(ctx)
	go s.keepTables(ctx)
	if s.spareCount > 0 {
		s.background.Add(1)
		go s.refill(ctx)
	}
}

// adopt enters the sandboxes and claims their addresses.
func (s *Service) adopt(sandboxes []Sandbox) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restored || s.closed {
		return fault.New(fault.Internal, "network %s: restore must come once, before attach", s.bridge.name)
	}
	for _, b := range sandboxes {
		for _, e := range b.Endpoints {
			// After a change of the bridge's subnet the containers that run keep
			// their old addresses, which are nobody's here: no reason to fail.
			_ = s.addrs.claim(e.Address.Addr())
		}
		s.enterLocked(b)
	}
	s.addrs.resume()
	return nil
}

// Gateway is the bridge's address: the containers' way out, and what
// host-gateway stands for.
func (s *Service) Gateway() netip.Addr { return s.bridge.address.Addr() }

// Close waits for the background work and discards the spare sandboxes. The
// bridge, the table and the endpoints stay for the containers that run.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	wasClosed, stop := s.closed, s.stop
	s.closed = true
	s.mu.Unlock()
	if wasClosed {
		return nil
	}
	if stop != nil {
		stop()
		s.watch.close()
	}
	done := make(chan struct{})
	go func() {
		s.background.Wait()
		s.emptyPool()
		s.clearDoomed()
		s.letGo()
		close(done)
	}()
	select {
	case <-done:
		s.release()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the removal of interfaces on %s: %w", s.bridge.name, ctx.Err())
	}
}

// letGo drops the namespaces of the endpoints that stay.
func (s *Service) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ns := range s.held {
		ns.Close()
	}
	clear(s.held)
}

// release closes what Open and Restore opened.
func (s *Service) release() {
	if s.watch != nil {
		s.watch.close()
	}
	if s.claim != nil {
		s.claim.release()
	}
	if s.routes != nil {
		s.routes.close()
	}
	if s.hostNS != nil {
		s.hostNS.Close()
	}
}

// networkID derives an ID, 64 hexadecimal digits, that is the same in each run
// of a daemon.
func (s *Service) networkID(name string) string {
	sum := sha256.Sum256([]byte(s.identity + "\x00" + s.bridge.name + "\x00" + name))
	return hex.EncodeToString(sum[:])
}

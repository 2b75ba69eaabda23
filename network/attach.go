package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewall"
)

// Attach gives a container a network namespace on the default bridge and
// publishes its ports. After an error nothing of it is left. The kinds are
// NotFound for an unknown network, Invalid and NotImplemented for what cannot
// be, Unavailable when the addresses are exhausted, Conflict for a requested
// address that is taken, Internal for a port that is taken (Docker's status
// 500).
func (s *Service) Attach(ctx context.Context, r Request) (*Attachment, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.background.Done()
	if err := s.checkWants(r.Wants); err != nil {
		return nil, err
	}
	if err := CheckPorts(r.Ports); err != nil {
		return nil, err
	}
	a, err := s.attach(r)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "failed to set up container networking: %w", err)
	}
	return a, nil
}

// begin counts an attachment that Close has to wait for.
func (s *Service) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fault.New(fault.Unavailable, "network %s is closed", s.bridge.name)
	case !s.restored:
		return fault.New(fault.Internal, "network %s: restore must come before attach", s.bridge.name)
	}
	s.background.Add(1)
	return nil
}

// checkWants refuses a network that has no endpoints or does not exist.
func (s *Service) checkWants(wants []Want) error {
	if len(wants) != 1 {
		return fault.New(fault.NotImplemented, "%d networks of one container are not supported yet", len(wants))
	}
	name := wants[0].Network
	if name == "" || name == "default" {
		return nil
	}
	name, err := s.resolve(name)
	if err == nil && name != networkBridge {
		err = fault.New(fault.Invalid, "network %s has no endpoints", name)
	}
	return err
}

func (s *Service) attach(r Request) (_ *Attachment, err error) {
	w := r.Wants[0]
	a := &Attachment{Sandbox: Sandbox{ID: newID(), ContainerID: r.ContainerID, Name: r.Name, Hostname: r.Hostname, Domainname: r.Domainname, DNS: r.DNS}}
	a.Endpoints = []Endpoint{{
		ID: newID(), NetworkID: s.networkID(networkBridge), NetworkName: networkBridge, Driver: networkBridge,
		Interface: "eth0", Gateway: s.Gateway(), GwPriority: w.GwPriority,
	}}
	e := &a.Endpoints[0]
	var undo []func()
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				f()
			}
		}
	}()
	addr, err := s.takeAddress(w.Address)
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() { s.addrs.release(addr) })
	e.Address = netip.PrefixFrom(addr, s.bridge.address.Bits())
	if e.MAC, err = macFor(w.MAC, addr); err != nil {
		return nil, err
	}
	if a.Ports, a.Sockets, err = s.reserve(r.Ports, &a.Sandbox); err != nil {
		return nil, s.connectivityError(a.Sandbox, err)
	}
	undo = append(undo, func() { closeAll(a.Sockets) })
	box, err := s.equip(e)
	if err != nil {
		return nil, err
	}
	// The address stays out of use until the interface that has it is gone.
	undo[0] = func() { s.abandon(box, addr) }
	if a.NetNS, err = box.share(); err != nil {
		return nil, err
	}
	undo = append(undo, func() { a.NetNS.Close() })
	if err = s.publish(a.Sandbox); err != nil {
		return nil, s.connectivityError(a.Sandbox, err)
	}
	s.hold(a.ID, box)
	return a, nil
}

// hold keeps the namespace open, or the kernel would end it, alone
// and at once, when the container ends.
func (s *Service) hold(sandboxID string, box *sandbox) {
	box.routes.close()
	s.mu.Lock()
	s.held[sandboxID] = box.ns
	s.mu.Unlock()
	s.signal()
}

func (s *Service) connectivityError(b Sandbox, err error) error {
	return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", b.Name, b.Endpoints[0].ID, err)
}

// taken lists the ports of all sandboxes.
func (s *Service) taken() []Published {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Published
	for _, b := range s.sandboxes {
		list = append(list, b.Ports...)
	}
	return list
}

func (s *Service) takeAddress(wanted netip.Addr) (netip.Addr, error) {
	if wanted.IsValid() {
		err := s.addrs.claim(wanted)
		if errors.Is(err, fault.Conflict) { // its last interface may only wait to be deleted
			s.clearDoomed()
			err = s.addrs.claim(wanted)
		}
		return wanted, err
	}
	addr, err := s.addrs.take()
	if err != nil {
		// Some may wait for their interfaces to be deleted.
		s.clearDoomed()
		return s.addrs.take()
	}
	return addr, err
}

// equip gives the endpoint a sandbox, a spare one or a new one.
func (s *Service) equip(e *Endpoint) (*sandbox, error) {
	select {
	case box := <-s.spare:
		if box.configure(*e) == nil {
			e.HostInterface = box.host
			return box, nil
		}
		// Somebody may have deleted its interface while it waited.
		s.discard(box)
	default:
	}
	box, err := s.makeSandbox()
	if err != nil {
		return nil, err
	}
	if err := box.configure(*e); err != nil {
		s.discard(box)
		return nil, err
	}
	e.HostInterface = box.host
	return box, nil
}

// discard abandons a sandbox that may have the endpoint's address already: it
// must not answer for it beside the one that gets it.
func (s *Service) discard(box *sandbox) {
	if l, err := netlink.LinkByName(box.host); err == nil {
		_ = netlink.LinkSetDown(l) // one that is there can be
	}
	s.abandon(box, netip.Addr{})
}

// abandon leaves a sandbox to the remover, and the address that is free then.
func (s *Service) abandon(box *sandbox, addr netip.Addr) {
	box.routes.close()
	s.doom(removal{host: box.host, ns: box.ns, address: addr})
}

// publish enters the sandbox and adds its ports to the table. A table that
// somebody changed or flushed is made anew.
func (s *Service) publish(b Sandbox) error {
	s.rules.Lock()
	defer s.rules.Unlock()
	s.mu.Lock()
	stale := s.enterLocked(b)
	s.mu.Unlock()
	var err error
	switch add := s.elements(b); {
	case stale:
	case len(b.Ports) > 0: // which may still be another's
		err = s.settleLocked(add)
	default:
		err = s.firewall.Change(nil, add)
	}
	if stale || err != nil {
		err = s.firewall.Replace(s.wanted())
	}
	if err != nil {
		s.forget(b)
		return err
	}
	if publishesUDP(b.Ports) {
		firewall.ForgetLocalFlows(ruled(b))
	}
	return nil
}

// enterLocked adds the sandbox to those that are known. Whoever had one of its
// ports before has lost it, since its socket could be bound: a container that
// ended and is not detached yet. That is told by the result.
func (s *Service) enterLocked(b Sandbox) (stale bool) {
	type hostPort struct {
		port  uint16
		proto string
	}
	taken := map[hostPort][]Published{}
	for _, p := range b.Ports {
		key := hostPort{p.HostPort, p.Proto}
		taken[key] = append(taken[key], p)
	}
	for id, other := range s.sandboxes {
		lost := func(p Published) bool {
			return slices.ContainsFunc(taken[hostPort{p.HostPort, p.Proto}], p.sharesAddress)
		}
		if slices.ContainsFunc(other.Ports, lost) {
			stale = true
			other.Ports = slices.DeleteFunc(slices.Clone(other.Ports), lost)
			s.sandboxes[id] = other
		}
	}
	s.sandboxes[b.ID] = b
	return stale
}

// sharesAddress tells whether both are on a common address of the host.
func (p Published) sharesAddress(q Published) bool {
	return p.HostIP == q.HostIP || p.HostIP.IsUnspecified() || q.HostIP.IsUnspecified()
}

// settleLocked takes what belongs to sandboxes that left out of the tables and
// adds what is given, all in one transaction; the tables are made anew if they
// do not hold it.
func (s *Service) settleLocked(add []firewall.Element) error {
	s.mu.Lock()
	leaving := s.leaving
	s.leaving = nil
	s.mu.Unlock()
	if err := s.firewall.Change(leaving, add); err != nil {
		return s.firewall.Replace(s.wanted())
	}
	return nil
}

func (s *Service) forget(b Sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sandboxes, b.ID)
}

// macFor gives eth0's MAC address: the one asked for, or 02:42 and the IP
// address, so that an IP address that is taken again has the same MAC address
// and no neighbour's ARP entry is ever stale.
func macFor(wanted string, addr netip.Addr) (string, error) {
	if wanted == "" {
		b := addr.As4()
		return append(net.HardwareAddr{0x02, 0x42}, b[:]...).String(), nil
	}
	mac, err := net.ParseMAC(wanted)
	if err != nil || len(mac) != 6 {
		return "", fault.New(fault.Invalid, "invalid MAC address %q", wanted)
	}
	return mac.String(), nil
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// emptyPool leaves the spare sandboxes to the remover.
func (s *Service) emptyPool() {
	for {
		select {
		case box := <-s.spare:
			s.abandon(box, netip.Addr{})
		default:
			return
		}
	}
}

package network

import (
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/tarehq/tare/network/link"
)

// box is a network namespace as it is worked on.
type box struct {
	*link.Space
	// first is the interface eth0 that a namespace has that waits; nil without.
	first    *link.Port
	prepared io.Closer // by Names
	// waiting is the sandbox that a namespace is which waits: with its place on
	// the lan, and the pins of that in the tables. nil for another.
	waiting *Sandbox
}

// freeName gives the next name of the prefix that no interface of the box has.
func (b *box) freeName(prefix string, endpoints []Endpoint) string {
	for i := 0; ; i++ {
		name := fmt.Sprint(prefix, i)
		if !slices.ContainsFunc(endpoints, func(e Endpoint) bool { return e.Interface == name }) && !b.Has(name) {
			return name
		}
	}
}

// configure gives the endpoint's interface its addresses and brings it up, and
// sets the default routes that it has.
func (b *box) configure(p *link.Port, e *Endpoint, made Link, default4, default6 bool) error {
	set := link.Settings{Routes: made.Routes}
	if !made.Bare {
		set.MAC = e.MAC
		for _, a := range []netip.Prefix{e.Address, e.Address6} {
			if a.IsValid() {
				set.Addresses = append(set.Addresses, a)
			}
		}
	}
	for _, a := range e.LinkLocal {
		length := 16
		if a.Is6() {
			length = 64
		}
		set.Addresses = append(set.Addresses, netip.PrefixFrom(a, length))
	}
	if default4 {
		set.Defaults = append(set.Defaults, e.Gateway)
	}
	if default6 {
		set.Defaults = append(set.Defaults, e.Gateway6)
	}
	return b.Configure(p, set)
}

// announce tells an endpoint's neighbours where it is, if someone may have had
// its addresses before under another MAC address. It comes after the rules, which
// stop what they do not know.
func (b *box) announce(e *Endpoint) {
	if e.Chosen || e.Driver != networkBridge {
		b.Announce(e.Interface, e.MAC, e.Address, e.Address6)
	}
}

// close lets go of the namespace, which ends unless others hold it.
func (b *box) close() {
	b.closeRest()
	b.Close()
}

// closeRest closes all but the namespace.
func (b *box) closeRest() {
	b.Finish()
	if b.prepared != nil {
		b.prepared.Close()
		b.prepared = nil
	}
}

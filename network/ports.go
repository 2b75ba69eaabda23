package network

import (
	"fmt"
	"os"

	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/publish"
)

// publisher takes the host's ports for the sandboxes.
type publisher struct {
	lans      *lans
	sandboxes *sandboxes
	noProxy   bool
}

// reserve binds the sockets of the ports if they can be published, and
// remembers them if they cannot be yet.
func (p *publisher) reserve(a *Attachment, ports []Port) (err error) {
	if len(ports) == 0 {
		return nil
	}
	if !a.Sandbox.publishes() {
		a.Pending = ports
		return nil
	}
	place := p.place(&a.Sandbox)
	if a.Ports, a.Sockets, err = place.Reserve(ports, p.taken); err != nil {
		return connectivityError(a.Sandbox, err)
	}
	a.Pending = nil
	return nil
}

// settle publishes the ports that are wanted when the sandbox can publish
// any from now on, and gives up those that would lead nowhere.
func (p *publisher) settle(a *Attachment, wanted []Port) error {
	switch {
	case !a.Sandbox.publishes():
		a.Ports, a.Pending = nil, wanted
	case len(a.Ports) == 0:
		return p.reserve(a, wanted)
	}
	return nil
}

// taken lists the ports of all sandboxes.
func (p *publisher) taken() (list []Published) {
	for _, b := range p.sandboxes.all() {
		list = append(list, b.Ports...)
	}
	return list
}

// place is where the sandbox's ports lead, with what its networks say of them.
func (p *publisher) place(b *Sandbox) publish.Place {
	four, six := b.target4(), b.target6()
	at := publish.Place{To4: four.Address, To6: six.Address, NoProxy: p.noProxy, Bare4: b.Bare4, Bare6: b.Bare6}
	for _, g := range p.lans.segments() {
		if g.NetworkID == four.Network {
			at.Bind4, at.Routed4 = g.Bind4, g.Mode4 == firewall.ModeRouted
		}
		if g.NetworkID == six.Network {
			at.Bind6, at.Routed6 = g.Bind6, g.Mode6 == firewall.ModeRouted
		}
	}
	return at
}

func connectivityError(b Sandbox, err error) error {
	return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", b.Name, b.Endpoints[0].ID, err)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

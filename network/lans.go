package network

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/link"
)

// lans are the networks that there are, those that are being made or removed
// among them. Their lock may be taken with the service's held and the sandboxes'
// within it.
type lans struct {
	sandboxes *sandboxes

	mu     sync.Mutex // guards what follows and the lans' state; never held during I/O
	byID   map[string]*lan
	byName map[string]*lan
	segs   []segment // nil when a bridge has come or gone since
}

func (n *lans) open(s *sandboxes) {
	n.sandboxes, n.byID, n.byName = s, map[string]*lan{}, map[string]*lan{}
}

// join finds the lans that are wanted and keeps them from being removed, until
// unjoin.
func (n *lans) join(wants []Want) (lans []*lan, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range wants {
		l, err := n.findLocked(w.Network)
		if err == nil {
			err = l.joinable()
		}
		if err == nil && slices.Contains(lans, l) {
			err = fault.New(fault.Invalid, "network %s is wanted twice", l.Name)
		}
		if err != nil {
			for _, l := range lans {
				l.joining--
			}
			return nil, err
		}
		l.joining++
		lans = append(lans, l)
	}
	return lans, nil
}

func (n *lans) unjoin(lans []*lan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range lans {
		l.joining--
	}
}

// findLocked finds a lan that is up, in Docker's order: by ID, by name, by the
// beginning of an ID.
func (n *lans) findLocked(nameOrID string) (*lan, error) {
	if nameOrID == "" || nameOrID == "default" {
		nameOrID = networkBridge
	}
	for _, l := range []*lan{n.byID[nameOrID], n.byName[nameOrID]} {
		if l != nil && l.state == lanUp {
			return l, nil
		}
	}
	var found []*lan
	for id, l := range n.byID {
		if l.state == lanUp && strings.HasPrefix(id, nameOrID) {
			found = append(found, l)
		}
	}
	switch len(found) {
	case 0:
		return nil, fault.New(fault.NotFound, "network %s not found", nameOrID)
	case 1:
		return found[0], nil
	}
	return nil, fault.New(fault.Invalid, "network %s is ambiguous (%d matches found based on ID prefix)", nameOrID, len(found))
}

func (n *lans) isUp(l *lan) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return l.state == lanUp
}

// reserve takes the network's name, and its bridge's.
func (n *lans) reserve(l *lan) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byName[l.Name] != nil {
		return fault.New(fault.Conflict, "network with name %s already exists", l.Name)
	}
	for _, other := range n.byID {
		if l.Bridge != "" && other.Bridge == l.Bridge {
			return fault.New(fault.Forbidden, "cannot create network %s (%s): conflicts with network %s (%s): networks have same bridge name", l.ID, l.Bridge, other.ID, other.Bridge)
		}
	}
	n.byID[l.ID], n.byName[l.Name] = l, l
	return nil
}

// strike forgets a lan.
func (n *lans) strike(l *lan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.byID, l.ID)
	if n.byName[l.Name] == l {
		delete(n.byName, l.Name)
	}
}

// put makes a lan known.
func (n *lans) put(l *lan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.byID[l.ID] = l
	n.byName[l.Name] = l
}

// depart marks a network that is to be removed: nobody joins it from then on.
func (n *lans) depart(nameOrID string) (*lan, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, err := n.findLocked(nameOrID)
	if err != nil {
		return nil, err
	}
	if predefined(l.Name) {
		return nil, fault.New(fault.Forbidden, "%s is a pre-defined network and cannot be removed", l.Name)
	}
	if users := n.usersLocked(l); len(users) > 0 {
		return nil, fault.New(fault.Forbidden, "error while removing network: network %s has active endpoints (%s)", l.Name, strings.Join(users, ", "))
	}
	if l.joining > 0 {
		return nil, fault.New(fault.Forbidden, "error while removing network: network %s has active endpoints (a container is being attached)", l.Name)
	}
	for _, other := range n.byID {
		if l.ConfigOnly && other.ConfigFrom.Network == l.Name {
			return nil, fault.New(fault.Forbidden, "error while removing network: configuration network %q is in use", l.Name)
		}
	}
	l.state = lanLeaving
	return l, nil
}

// usersLocked tells who is on a network, in Docker's form.
func (n *lans) usersLocked(l *lan) (users []string) {
	for _, b := range n.sandboxes.all() {
		if e := b.On(l.ID); e != nil {
			users = append(users, fmt.Sprintf("name:%q id:%q", b.Name, e.ID[:min(12, len(e.ID))]))
		}
	}
	slices.Sort(users)
	return users
}

// setUp is the end of a lan's making, and undoes depart.
func (n *lans) setUp(l *lan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l.state = lanUp
}

// all are the lans: those that always exist, then the oldest first.
func (n *lans) all() []*lan {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*lan
	for _, l := range n.byID {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *lan) int {
		if c := slices.Index(predefinedNames, b.Name) - slices.Index(predefinedNames, a.Name); c != 0 {
			return c
		}
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// masters are the endpoints' ends on bridges, with the bridges' indexes; 0 is
// one that is not up.
func (n *lans) masters() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[string]int{}
	for _, b := range n.sandboxes.all() {
		for _, e := range b.Endpoints {
			out[e.HostInterface] = 0
			if l := n.byID[e.NetworkID]; l != nil && l.bridge != nil {
				out[e.HostInterface] = l.bridge.Index
			}
		}
	}
	return out
}

// segments are the bridges of now, not to be changed.
func (n *lans) segments() []segment {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.segs == nil {
		for _, l := range n.byID {
			if l.bridge != nil {
				n.segs = append(n.segs, l.segment())
			}
		}
	}
	return n.segs
}

// setBridge tells that the lan's bridge is up or, with nil, gone.
func (n *lans) setBridge(l *lan, b *bridge) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l.bridge, n.segs = b, nil
}

// get gives the one of the ID, nil if there is none.
func (n *lans) get(id string) *lan {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byID[id]
}

// raisedBridges are those of the networks that are up.
func (n *lans) raisedBridges() (out []*bridge) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.byID {
		if l.bridge != nil {
			out = append(out, l.bridge)
		}
	}
	return out
}

// bridgeUp gives the lan's bridge.
func (n *lans) bridgeUp(l *lan) (link.Bridge, error) {
	n.mu.Lock()
	br := l.bridge
	n.mu.Unlock()
	if br == nil {
		return link.Bridge{}, l.whyDown(nil)
	}
	return br.Bridge, nil
}

// named gives the lan of the name, nil if there is none.
func (n *lans) named(name string) *lan {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byName[name]
}

// find is findLocked.
func (n *lans) find(nameOrID string) (*lan, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.findLocked(nameOrID)
}

// inUse tells whether somebody is on the lan or about to be.
func (n *lans) inUse(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.byID[id]
	return l != nil && (l.joining > 0 || len(n.usersLocked(l)) > 0)
}

// moved are the lans where addresses were taken since it was asked.
func (n *lans) moved() (out []*lan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.byID {
		if l.state == lanUp && l.moved.Swap(false) {
			out = append(out, l)
		}
	}
	return out
}

// stands tells whether the lan was made, with its bridge if it has one.
func (n *lans) stands(l *lan) (bool, *bridge) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return l.failure == nil && (l.bridge != nil || l.driver() != nil), l.bridge
}

// mended tells that the lan could be made after all.
func (n *lans) mended(l *lan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l.failure = nil
}

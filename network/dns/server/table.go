package server

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	mdns "github.com/miekg/dns"

	"github.com/tarehq/tare/network/dns"
)

// table holds the names of all sandboxes, by network. It is the sum of what
// the sandboxes were set to.
type table struct {
	mu        sync.RWMutex
	networks  map[string]*network // by ID
	sandboxes map[string]*view    // by ID
}

// network is what the sandboxes on one network call each other.
type network struct {
	members int
	names   map[string][]member // by canonical name
	reverse map[netip.Addr][]member
}

// member is a sandbox under one of its names.
type member struct {
	sandbox   string
	name      string // as it was told
	addresses []netip.Addr
}

// view is what one sandbox can look up.
type view struct {
	sandbox dns.Sandbox
	places  []place
}

type place struct {
	*network
	name  string            // the network's, canonical
	links map[string]string // both canonical
}

func newTable() table {
	return table{networks: map[string]*network{}, sandboxes: map[string]*view{}}
}

// set enters a sandbox in the place of what it was.
func (t *table) set(sb dns.Sandbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(sb.ID)
	v := &view{sandbox: sb}
	for _, p := range sb.Places {
		n := t.networks[p.NetworkID]
		if n == nil {
			n = &network{names: map[string][]member{}, reverse: map[netip.Addr][]member{}}
			t.networks[p.NetworkID] = n
		}
		n.enter(sb, p)
		links := make(map[string]string, len(p.Links))
		for alias, name := range p.Links {
			links[canonical(alias)] = canonical(name)
		}
		v.places = append(v.places, place{n, canonical(p.Network), links})
	}
	t.sandboxes[sb.ID] = v
}

// sandbox is as it was set.
func (t *table) sandbox(id string) dns.Sandbox {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if v := t.sandboxes[id]; v != nil {
		return v.sandbox
	}
	return dns.Sandbox{}
}

func (t *table) drop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(id)
}

func (t *table) dropLocked(id string) {
	v := t.sandboxes[id]
	if v == nil {
		return
	}
	delete(t.sandboxes, id)
	for i, p := range v.sandbox.Places {
		n := v.places[i].network
		n.leave(v.sandbox, p)
		if n.members == 0 {
			delete(t.networks, p.NetworkID)
		}
	}
}

// enter and leave change the members by one place.
func (n *network) enter(sb dns.Sandbox, p dns.Place) {
	n.members++
	for i, name := range p.Names {
		m := member{sb.ID, name, p.Addresses}
		key := canonical(name)
		if !slices.ContainsFunc(n.names[key], m.same) {
			n.names[key] = append(n.names[key], m)
		}
		for _, a := range p.Addresses {
			if i == 0 {
				n.reverse[a] = append(n.reverse[a], m)
			}
		}
	}
}

func (n *network) leave(sb dns.Sandbox, p dns.Place) {
	n.members--
	gone := member{sandbox: sb.ID}
	for _, name := range p.Names {
		remove(n.names, canonical(name), gone)
	}
	for _, a := range p.Addresses {
		remove(n.reverse, a, gone)
	}
}

func (m member) same(o member) bool { return m.sandbox == o.sandbox }

// remove takes the sandbox's member out. Readers may hold the old list.
func remove[K comparable](of map[K][]member, key K, gone member) {
	left := slices.DeleteFunc(slices.Clone(of[key]), gone.same)
	if len(left) == 0 {
		delete(of, key)
	} else {
		of[key] = left
	}
}

// addresses looks a canonical name up for a sandbox. A name a.b.c is c's own, or
// a.b on the network c, or a on the network b.c, whichever is found first. The
// addresses of one network alone are given, and none for a name that is known
// and whose sandboxes have none.
func (t *table) addresses(sandbox, name string) (found []netip.Addr, known bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v := t.sandboxes[sandbox]
	if v == nil {
		return nil, false
	}
	for host, scope := name, ""; ; {
		if found, known = v.addresses(host, scope); known {
			return found, true
		}
		dot := strings.LastIndexByte(host, '.')
		if dot < 0 {
			return nil, false
		}
		host, scope = name[:dot], name[dot+1:]
	}
}

// addresses is about the network of the name scope, or all of them for "".
func (v *view) addresses(host, scope string) ([]netip.Addr, bool) {
	for _, p := range v.places { // a link goes before all names
		if name, ok := p.links[host]; ok && (scope == "" || scope == p.name) {
			if found, ok := p.addresses(name); ok {
				return found, true
			}
		}
	}
	for _, p := range v.places {
		// One that is linked to somebody who is not there has no other meaning.
		if _, linked := p.links[host]; !linked && (scope == "" || scope == p.name) {
			if found, ok := p.addresses(host); ok {
				return found, true
			}
		}
	}
	return nil, false
}

// addresses are those of all that have the name.
func (n *network) addresses(name string) ([]netip.Addr, bool) {
	members := n.names[name]
	if len(members) == 1 {
		return members[0].addresses, true
	}
	var all []netip.Addr
	for _, m := range members {
		all = append(all, m.addresses...)
	}
	return all, len(members) > 0
}

// name gives the name of an address on one of the sandbox's networks, "" for
// none.
func (t *table) name(sandbox string, a netip.Addr) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v := t.sandboxes[sandbox]
	if v == nil {
		return ""
	}
	for i, p := range v.places {
		if members := p.reverse[a]; len(members) > 0 {
			return members[0].name + "." + v.sandbox.Places[i].Network
		}
	}
	return ""
}

// canonical gives a name as look-ups have it: in lower case, without the last
// dot, and with the escapes that the library gives to what is no letter, digit,
// hyphen or underscore. A name that no question can have is left as it is.
func canonical(name string) string {
	plain := true
	for i := range len(name) {
		c := name[i]
		plain = plain && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.')
	}
	if !plain {
		var wire []byte
		for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
			wire = append(append(wire, byte(len(label))), label...)
		}
		if shown, _, err := mdns.UnpackDomainName(append(wire, 0), 0); err == nil {
			name = shown
		}
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

package network

import (
	"os"
	"slices"
	"sync"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewall"
)

// sandboxes are those of the containers, and those that wait for one. What they
// give are copies; their lock may be taken with the service's held, not the other
// way round.
type sandboxes struct {
	mu      sync.Mutex // guards what follows; never held during I/O
	byID    map[string]Sandbox
	waiting []*Sandbox          // without a container, the oldest first
	held    map[string]*os.File // their namespaces, by ID
	leaving []firewall.Element  // of those that left, still in the table
}

func (k *sandboxes) open() {
	k.byID, k.held = map[string]Sandbox{}, map[string]*os.File{}
}

// get gives the sandbox as it is known.
func (k *sandboxes) get(id string) (Sandbox, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, ok := k.byID[id]
	if !ok {
		return b, fault.New(fault.Conflict, "container is not running")
	}
	b.Endpoints = slices.Clone(b.Endpoints)
	return b, nil
}

// put makes a sandbox known, or what is known of it another.
func (k *sandboxes) put(b Sandbox) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.byID[b.ID] = b
}

// change changes what is known of a sandbox, and gives it before and after.
func (k *sandboxes) change(id string, f func(*Sandbox)) (before, after Sandbox, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, ok := k.byID[id]
	if !ok {
		return before, before, fault.New(fault.Conflict, "container is not running")
	}
	after = before
	f(&after)
	k.byID[id] = after
	return before, after, nil
}

// forget drops a sandbox that did not come about.
func (k *sandboxes) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byID, id)
}

// part gives a sandbox up, with its namespace if that was held.
func (k *sandboxes) part(id string) (b Sandbox, ns *os.File, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, known = k.byID[id]
	ns = k.held[id]
	delete(k.byID, id)
	delete(k.held, id)
	return b, ns, known
}

// all are the containers' ones.
func (k *sandboxes) all() (list []Sandbox) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range k.byID {
		list = append(list, b)
	}
	return list
}

// placed are the containers' ones and those that wait.
func (k *sandboxes) placed() (list []Sandbox) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range k.byID {
		list = append(list, b)
	}
	for _, b := range k.waiting {
		list = append(list, *b)
	}
	return list
}

// unused are those that wait, the oldest first.
func (k *sandboxes) unused() []*Sandbox {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.waiting)
}

// enter adds the sandbox to those that are known, in the place of one that
// waited if that is not nil. Whoever had one of its ports before has lost it,
// since its socket could be bound: a container that ended and is not detached
// yet. That is told by the result.
func (k *sandboxes) enter(b Sandbox, waited *Sandbox) (stale bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	stale = k.loseLocked(b.Ports)
	k.byID[b.ID] = b
	k.unwaitLocked(waited)
	return stale
}

// loseLocked takes the ports from those that had them, and tells whether any had.
func (k *sandboxes) loseLocked(ports []Published) (lost bool) {
	if len(ports) == 0 { // lest a start looks at all that run
		return false
	}
	type hostPort struct {
		port  uint16
		proto string
	}
	taken := map[hostPort][]Published{}
	for _, p := range ports {
		key := hostPort{p.HostPort, p.Proto}
		taken[key] = append(taken[key], p)
	}
	for id, other := range k.byID {
		gone := func(p Published) bool {
			return p.HostPort != 0 && slices.ContainsFunc(taken[hostPort{p.HostPort, p.Proto}], p.SharesAddress)
		}
		if slices.ContainsFunc(other.Ports, gone) {
			lost = true
			other.Ports = slices.DeleteFunc(slices.Clone(other.Ports), gone)
			k.byID[id] = other
		}
	}
	return lost
}

// wait adds one that has no container.
func (k *sandboxes) wait(b *Sandbox) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waiting = append(k.waiting, b)
}

// unwait forgets one that waited; elements are its own, which leave the table.
func (k *sandboxes) unwait(b *Sandbox, elements []firewall.Element) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unwaitLocked(b) {
		k.leaving = append(k.leaving, elements...)
	}
}

func (k *sandboxes) unwaitLocked(b *Sandbox) bool {
	i := slices.Index(k.waiting, b)
	if i < 0 {
		return false
	}
	k.waiting = slices.Delete(k.waiting, i, i+1)
	return true
}

// leave tells of elements that are to leave the table, left takes all of them.
func (k *sandboxes) leave(elements []firewall.Element) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leaving = append(k.leaving, elements...)
}

func (k *sandboxes) left() []firewall.Element {
	k.mu.Lock()
	defer k.mu.Unlock()
	leaving := k.leaving
	k.leaving = nil
	return leaving
}

// hold keeps a namespace open, or the kernel would end it, alone and at once,
// when the container ends.
func (k *sandboxes) hold(id string, ns *os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[id] = ns
}

// letGo drops the namespaces that are held.
func (k *sandboxes) letGo() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, ns := range k.held {
		ns.Close()
	}
	clear(k.held)
}

// interfaces are the names of the endpoints' ends on the bridge.
func (k *sandboxes) interfaces() map[string]bool {
	names := map[string]bool{}
	for _, b := range k.all() {
		for _, e := range b.Endpoints {
			names[e.HostInterface] = true
		}
	}
	return names
}

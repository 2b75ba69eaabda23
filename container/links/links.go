// Package links knows the containers that others on the default bridge know by an alias,
// the --link of old: a line in the other's hosts file, and on wish variables.
package links

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/files"
)

// Table has the links between all containers. It knows who has a link to a
// container: those whose hosts files follow its address. A Table is safe for
// concurrent use.
type Table struct {
	store *record.Store
	log   *slog.Logger

	mu  sync.Mutex
	who map[string][]string // target -> IDs, each once
}

// New makes a table of the links that the records have.
func New(store *record.Store, log *slog.Logger) *Table {
	l := &Table{store: store, log: log, who: map[string][]string{}}
	for _, r := range store.All() {
		l.Add(&r)
	}
	return l
}

// Add has the table know a container's links.
func (l *Table) Add(r *record.Record) {
	if len(r.Links) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, link := range r.Links {
		if !slices.Contains(l.who[link.Target], r.ID) {
			l.who[link.Target] = append(l.who[link.Target], r.ID)
		}
	}
}

// Forget is Drop of a container that is removed, to which nobody has a link any
// more.
func (l *Table) Forget(r *record.Record) {
	l.Drop(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.who, r.ID)
}

// Drop takes away a container's links.
func (l *Table) Drop(r *record.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, link := range r.Links {
		rest := slices.DeleteFunc(slices.Clone(l.who[link.Target]), func(id string) bool { return id == r.ID })
		if l.who[link.Target] = rest; len(rest) == 0 {
			delete(l.who, link.Target)
		}
	}
}

func (l *Table) to(target string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.who[target]
}

// Check refuses links that could never be.
func (l *Table) Check(h *wire.HostConfig) error {
	if len(h.Links) == 0 {
		return nil
	}
	const undefined = "This would result in undefined behavior"
	switch mode := h.NetworkMode; {
	case mode.IsHost():
		return fault.New(fault.Invalid, "conflicting options: host type networking can't be used with links. %s", undefined)
	case mode.IsContainer():
		return fault.New(fault.Invalid, "conflicting options: container type network can't be used with links. %s", undefined)
	case mode.IsNone():
		return fault.New(fault.Invalid, "conflicting options: links (Links) need the default bridge, and the network mode is none")
	case mode.IsUserDefined(): // there, links are the endpoint's
		return nil
	}
	_, err := l.Find(h.Links)
	return err
}

// Find finds the containers that are meant. One that is missing is not
// fault.NotFound, by which clients know a missing image.
func (l *Table) Find(list []string) (found []record.Link, err error) {
	for _, text := range list {
		name, alias, err := record.ParseLink(text)
		if err != nil {
			return nil, err
		}
		target, err := l.store.Find(name)
		for err == nil && target.HostConfig.NetworkMode.IsContainer() { // the address is the other's
			name = target.HostConfig.NetworkMode.ConnectedContainer()
			target, err = l.store.Find(name)
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "could not get container for %s: %w", name, err)
		}
		if target.HostConfig.NetworkMode.IsHost() {
			return nil, fault.New(fault.Invalid, "conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		}
		found = append(found, record.Link{Target: target.ID, Alias: alias})
	}
	return found, nil
}

// linked is a running container as another one knows it.
type linked struct {
	alias string
	record.Record
}

// targets are the running containers that r has links to; one that was
// removed takes its links along.
func (l *Table) targets(r *record.Record) (list []linked, err error) {
	for _, link := range r.Links {
		t, err := l.store.Find(link.Target)
		switch {
		case err != nil:
			continue
		case !t.State.Up():
			return nil, fault.New(fault.Internal, "Cannot link to a non running container: /%s AS /%s/%s", t.Name, r.Name, link.Alias)
		case t.OnBridge() == nil:
			return nil, fault.New(fault.Internal, "Cannot link to /%s, as it does not belong to the default network", t.Name)
		}
		list = append(list, linked{link.Alias, t})
	}
	return list, nil
}

// Hosts are the lines of a container's hosts file for its links, whose targets have to
// run.
func (l *Table) Hosts(r *record.Record) (lines []files.HostsLine, err error) {
	targets, err := l.targets(r)
	for _, t := range targets {
		names := []string{t.alias, t.Config.Hostname}
		if t.Name != t.alias {
			names = append(names, t.Name)
		}
		lines = append(lines, files.HostsLine{Address: t.Address(), Names: names})
	}
	return lines, err
}

// Await waits, at most five seconds as Docker does, for those of the linked
// containers that are about to start: after a boot all begin at once. It returns
// false when nobody wants the start any more.
func (l *Table) Await(r *record.Record, giveUp, closing <-chan struct{}) bool {
	pending := func(link record.Link) bool {
		t, err := l.store.Find(link.Target)
		return err == nil && t.State == record.Restarting
	}
	deadline := time.Now().Add(5 * time.Second)
	for slices.ContainsFunc(r.Links, pending) && time.Now().Before(deadline) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-giveUp:
			return false
		case <-closing:
			return false
		}
	}
	return true
}

// Shown is the host configuration with the links as inspect shows them, by
// the names of now.
func (l *Table) Shown(r record.Record) *wire.HostConfig {
	h := *r.HostConfig
	h.Links = nil
	for _, link := range r.Links {
		if t, err := l.store.Find(link.Target); err == nil {
			h.Links = append(h.Links, fmt.Sprintf("/%s:/%s/%s", t.Name, r.Name, link.Alias))
		}
	}
	slices.Sort(h.Links)
	return &h
}

// Names are the further names that links give to a container.
func (l *Table) Names(target string) (names []string) {
	for _, id := range l.to(target) {
		parent, err := l.store.Find(id)
		if err != nil {
			continue
		}
		for _, link := range parent.Links {
			if link.Target == target {
				names = append(names, "/"+parent.Name+"/"+link.Alias)
			}
		}
	}
	slices.Sort(names)
	return names
}

// Moved has the hosts files of those with a link to a container follow it to
// its new address.
func (l *Table) Moved(r record.Record) {
	if r.OnBridge() == nil {
		return
	}
	for _, id := range l.to(r.ID) {
		parent, err := l.store.Find(id)
		if err != nil || !parent.State.Live() {
			continue
		}
		for _, link := range parent.Links {
			if link.Target != r.ID {
				continue
			}
			if err := files.Readdress(l.store.Path(id, "hosts"), link.Alias, r.Address()); err != nil {
				l.log.Error("the address of a linked container cannot be changed in a hosts file", "container", id, "link", link.Alias, "err", err)
			}
		}
	}
}

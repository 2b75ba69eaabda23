package network

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/firewalld"
)

// ruleset keeps the tables as the bridges and the sandboxes want them.
type ruleset struct {
	mu        sync.Mutex // held while the tables are changed
	firewall  *firewall.Firewall
	options   firewall.Options
	shortcut  atomic.Bool // nobody else's rules look at frames between neighbours
	looks     bool        // that is known; not before all sandboxes are
	sandboxes *sandboxes
	segments  func() []segment // the bridges of now
	bridges   func() []*bridge // those among them that are up
}

// wanted computes the rules from the bridges and the sandboxes.
func (r *ruleset) wanted() firewall.Ruleset {
	networks := r.networks()
	return firewall.Rules(r.opts(), networks, r.ruledSandboxes())
}

// opts are the options as they are now.
func (r *ruleset) opts() firewall.Options {
	o := r.options
	o.Shortcut = r.shortcut.Load() && !o.Off
	return o
}

// lookLocked finds out whether frames between neighbours may take the shortcut,
// and tells whether that has changed. Whoever cannot be seen is taken to look.
func (r *ruleset) lookLocked() (changed bool) {
	lookers, err := firewall.Onlookers(r.options.Table)
	free := err == nil && len(lookers) == 0
	if changed = r.shortcut.Swap(free) != free; changed && !free {
		slog.Info("frames between neighbours take the way by the bridge, where others' rules see them", "rules", lookers, "err", err)
	}
	return changed
}

// replaceLocked makes the tables as they are wanted now.
func (r *ruleset) replaceLocked() error {
	r.looks = true
	r.lookLocked()
	return r.firewall.Replace(r.wanted())
}

func (r *ruleset) ruledSandboxes() (list []firewall.Sandbox) {
	for _, b := range r.sandboxes.placed() {
		list = append(list, ruled(b))
	}
	return list
}

// elements are a sandbox's own among the rules.
func (r *ruleset) elements(b Sandbox) []firewall.Element {
	return firewall.Elements(r.opts(), r.networks(), ruled(b))
}

// networks are the bridges as the firewall sees them.
func (r *ruleset) networks() (list []firewall.Network) {
	for _, g := range r.segments() {
		list = append(list, g.ruled())
	}
	return list
}

// renew makes the table anew, after a bridge has come or gone.
func (r *ruleset) renew() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.settleLocked(nil)
	if err == nil {
		err = r.replaceLocked()
	}
	return errors.Join(err, r.joinGuard())
}

// replace makes the table as it is wanted.
func (r *ruleset) replace() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.replaceLocked(), r.joinGuard())
}

// joinGuard has the guard let through what passes within any bridge, also those
// that came before it.
func (r *ruleset) joinGuard() error {
	if r.options.Off {
		return nil
	}
	return firewall.JoinGuard(r.names())
}

// names are the bridges'.
func (r *ruleset) names() (names []string) {
	for _, b := range r.bridges() {
		names = append(names, b.Name)
	}
	return names
}

// repair makes the tables that are missing.
func (r *ruleset) repair() error { return errors.Join(r.mend(r.bridges()), r.joinGuard()) }

func (r *ruleset) admit(names []string) error {
	if r.options.Off {
		return nil
	}
	return firewalld.Join(names...)
}

// rejoin has firewalld let through what passes the bridges, after it was started or
// has forgotten them. What may have gone with it is put back, too.
func (r *ruleset) rejoin() {
	if err := errors.Join(r.repair(), r.admit(r.names())); err != nil {
		slog.Error("firewalld does not know the bridges: containers may be cut off from other networks until it is reloaded", "err", err)
	}
}

// mend makes the tables that are missing, or that others' rules make wanted in
// another way, and the guard for the bridges.
func (r *ruleset) mend(bridges []*bridge) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := r.looks && r.lookLocked()
	present, err := r.firewall.Whole()
	if err == nil && (changed || !present) {
		err = r.firewall.Replace(r.wanted())
	}
	if err != nil {
		return err
	}
	for _, b := range bridges {
		for _, family := range b.guarded {
			if err := firewall.RaiseGuard(b.Name, family, b.open); err != nil {
				return err
			}
		}
	}
	return nil
}

// pin adds what belongs to a sandbox that waits from now on.
func (r *ruleset) pin(b *Sandbox) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandboxes.wait(b)
	if r.firewall.Change(nil, r.elements(*b)) != nil {
		return r.firewall.Replace(r.wanted())
	}
	return nil
}

// publish enters the sandbox and adds what belongs to it to the tables. Tables
// that somebody changed or flushed are made anew.
//
// What waited until now has its pins there.
func (r *ruleset) publish(b Sandbox, bx *box) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	stale := r.sandboxes.enter(b, bx.waiting)
	var err error
	var add []firewall.Element
	if bx.waiting == nil {
		add = r.elements(b)
	} else if len(b.Ports) > 0 || len(b.Endpoints) > 1 {
		add = firewall.Without(r.elements(b), r.elements(*bx.waiting))
	}
	bx.waiting = nil
	switch {
	case stale:
	case len(b.Ports) > 0: // which may still be another's
		err = r.settleLocked(add)
	case len(add) == 0:
	default:
		err = r.firewall.Change(nil, add)
	}
	if stale || err != nil {
		err = r.firewall.Replace(r.wanted())
	}
	if err != nil {
		r.sandboxes.forget(b.ID)
		return err
	}
	if publishesUDP(b.Ports) {
		firewall.ForgetLocalFlows(ruled(b))
	}
	return nil
}

// settleLocked takes what belongs to sandboxes that left out of the tables and
// adds what is given, all in one transaction; the tables are made anew if they
// do not hold it.
func (r *ruleset) settleLocked(add []firewall.Element) error {
	if err := r.firewall.Change(r.sandboxes.left(), add); err != nil {
		return r.firewall.Replace(r.wanted())
	}
	return nil
}

// settle withdraws what belongs to sandboxes that left.
func (r *ruleset) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.settleLocked(nil); err != nil {
		slog.Warn("cannot withdraw the rules of containers that are gone", "error", err)
	}
}

// republish changes what is known of a sandbox, and what belongs to it in the
// tables.
func (r *ruleset) republish(before, after Sandbox) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, after, err := r.sandboxes.change(before.ID, func(b *Sandbox) {
		if len(before.Ports) > 0 && len(after.Ports) > 0 {
			after.Ports = b.Ports // another may have one of them by now
		}
		*b = after
	})
	if err != nil {
		return err
	}
	old, new := r.elements(now), r.elements(after)
	remove, add := firewall.Diff(old, new)
	if err = r.settleLocked(nil); err == nil {
		err = r.firewall.Change(remove, add)
	}
	if err != nil {
		err = r.firewall.Replace(r.wanted())
	}
	if err != nil {
		r.sandboxes.put(now)
		return errors.Join(err, r.firewall.Replace(r.wanted()))
	}
	if publishesUDP(after.Ports) {
		firewall.ForgetLocalFlows(ruled(after))
	}
	return nil
}

// withdraw takes the sandbox's elements out of the tables: at once if it has
// published ports, else with the next that are changed, or when its interfaces
// are deleted. The sandbox is as stored: another may have one of its ports by
// now.
func (r *ruleset) withdraw(stored Sandbox) error {
	r.sandboxes.leave(r.elements(stored))
	if len(stored.Ports) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.settleLocked(nil)
}

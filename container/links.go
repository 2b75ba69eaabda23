package container

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/files"
)

// links are those between all containers. They know who has a link to a
// container: those whose hosts files follow its address. links is safe for
// concurrent use.
type links struct {
	store *record.Store
	log   *slog.Logger

	mu  sync.Mutex
	who map[string][]string // target -> IDs, each once
}

func (l *links) add(r *Record) {
	if len(r.Links) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, link := range r.Links {
		if !slices.Contains(l.who[link.Target], r.ID) {
			if l.who == nil {
				l.who = map[string][]string{}
			}
			l.who[link.Target] = append(l.who[link.Target], r.ID)
		}
	}
}

// forget is drop of a container that is removed, to which nobody has a link any
// more.
func (l *links) forget(r *Record) {
	l.drop(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.who, r.ID)
}

// drop takes away a container's links.
func (l *links) drop(r *Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, link := range r.Links {
		rest := slices.DeleteFunc(slices.Clone(l.who[link.Target]), func(id string) bool { return id == r.ID })
		if l.who[link.Target] = rest; len(rest) == 0 {
			delete(l.who, link.Target)
		}
	}
}

func (l *links) to(target string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.who[target]
}

// check refuses links that could never be.
func (l *links) check(h *wire.HostConfig) error {
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
	_, err := l.find(h.Links)
	return err
}

// find finds the containers that are meant. One that is missing is not
// fault.NotFound, by which clients know a missing image.
func (l *links) find(list []string) (found []record.Link, err error) {
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
		found = append(found, record.Link{target.ID, alias})
	}
	return found, nil
}

// targets are the running containers that r has links to; one that was
// removed takes its links along.
func (l *links) targets(r *Record) (aliases []string, targets []Record, err error) {
	for _, link := range r.Links {
		t, err := l.store.Find(link.Target)
		switch {
		case err != nil:
			continue
		case !t.State.Up():
			return nil, nil, fault.New(fault.Internal, "Cannot link to a non running container: /%s AS /%s/%s", t.Name, r.Name, link.Alias)
		case t.OnBridge() == nil:
			return nil, nil, fault.New(fault.Internal, "Cannot link to /%s, as it does not belong to the default network", t.Name)
		}
		aliases, targets = append(aliases, link.Alias), append(targets, t)
	}
	return aliases, targets, nil
}

// await waits, at most five seconds as Docker does, for those of the linked
// containers that are about to start: after a boot all begin at once. It returns
// false when nobody wants the start any more.
func (l *links) await(r *Record, giveUp, closing <-chan struct{}) bool {
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

// shown is the host configuration with the links as inspect shows them, by
// the names of now.
func (l *links) shown(r Record) *wire.HostConfig {
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

// names are the further names that links give to a container.
func (l *links) names(target string) (names []string) {
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

// linkHosts are the lines of the hosts file for the links.
func linkHosts(aliases []string, targets []Record) (lines []files.HostsLine) {
	for i, t := range targets {
		names := []string{aliases[i], t.Config.Hostname}
		if t.Name != aliases[i] {
			names = append(names, t.Name)
		}
		lines = append(lines, files.HostsLine{Address: t.Address(), Names: names})
	}
	return lines
}

// linkEnv are the variables that told of links before there were names: where
// the other is, and all of its own environment. Docker sets them no longer,
// unless it is told to.
func linkEnv(parent string, aliases []string, targets []Record) (env []string) {
	for i, t := range targets {
		prefix := strings.ReplaceAll(strings.ToUpper(aliases[i]), "-", "_")
		env = append(env, portEnv(prefix, t.Address(), t.Config.ExposedPorts)...)
		env = append(env, fmt.Sprintf("%s_NAME=/%s/%s", prefix, parent, aliases[i]))
		for _, kv := range t.Config.Env {
			if key, _, set := strings.Cut(kv, "="); set && key != "HOME" && key != "PATH" {
				env = append(env, prefix+"_ENV_"+kv)
			}
		}
	}
	return env
}

// portEnv tells of the ports, TCP first. Ports in a row are a range too.
func portEnv(prefix string, ip netip.Addr, exposed wirenet.PortSet) (env []string) {
	var ports []wirenet.Port
	for p := range exposed {
		ports = append(ports, p)
	}
	slices.SortFunc(ports, func(a, b wirenet.Port) int {
		if a.Proto() != b.Proto() {
			if a.Proto() == "tcp" {
				return -1
			}
			if b.Proto() == "tcp" {
				return 1
			}
			return strings.Compare(string(a.Proto()), string(b.Proto()))
		}
		return int(a.Num()) - int(b.Num())
	})
	url := func(p wirenet.Port) string { return fmt.Sprintf("%s://%s:%d", p.Proto(), ip, p.Num()) }
	name := func(p wirenet.Port) string {
		return fmt.Sprintf("%s_PORT_%d_%s", prefix, p.Num(), strings.ToUpper(string(p.Proto())))
	}
	if len(ports) > 0 {
		env = append(env, prefix+"_PORT="+url(ports[0]))
	}
	for i := 0; i < len(ports); {
		first, last := ports[i], ports[i]
		for i++; i < len(ports) && ports[i].Proto() == last.Proto() && ports[i].Num() == last.Num()+1; i++ {
			last = ports[i]
		}
		if first != last {
			n := name(first)
			env = append(env, n+"_START="+url(first), fmt.Sprintf("%s_PORT_START=%d", n, first.Num()),
				n+"_END="+url(last), fmt.Sprintf("%s_PORT_END=%d", n, last.Num()))
		}
	}
	for _, p := range ports {
		n := name(p)
		env = append(env, n+"="+url(p), n+"_ADDR="+ip.String(), fmt.Sprintf("%s_PORT=%d", n, p.Num()), n+"_PROTO="+string(p.Proto()))
	}
	return env
}

// moved has the hosts files of those with a link to a container follow it to
// its new address.
func (l *links) moved(r Record) {
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

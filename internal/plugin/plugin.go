// Package plugin speaks with the daemon's plugins by Docker's plugin protocol:
// programs of others that listen on a socket and are asked by JSON over HTTP
// POST. A plugin is found by its name below the Dirs, at the moment that
// somebody wants it:
//
//	<Sockets>/NAME.sock or <Sockets>/NAME/NAME.sock   a socket
//	<Specs>/NAME.spec or <Specs>/NAME/NAME.spec       one line: the address
//	<Specs>/NAME.json or <Specs>/NAME/NAME.json       address and TLS files
//
// The first call, Plugin.Activate, tells what it implements. A plugin is not
// trusted to answer: every call has an end, every answer a greatest size, and
// redirects are not followed.
//
// https://docs.docker.com/engine/extend/plugin_api/
package plugin

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// The times that plugins have. Limit ends calls whose context has no end of its
// own; glance is what each has for being asked among all the others.
const (
	Limit  = 2 * time.Minute
	glance = 5 * time.Second
)

// Set is the plugins of a machine.
type Set struct {
	dirs Dirs

	mu    sync.Mutex
	known map[string]*slot
}

// slot is the place of a plugin's name. The token in turn is held while it is
// looked for and activated, by one caller at a time; the plugin is read and
// written with the set's mu held.
type slot struct {
	turn   chan struct{}
	plugin *Plugin
}

// New returns the set of the plugins below dirs. Nothing is read yet.
func New(dirs Dirs) *Set {
	return &Set{dirs: dirs, known: map[string]*slot{}}
}

// Close closes the connections that no call uses.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.known {
		if sl.plugin != nil {
			sl.plugin.http.CloseIdleConnections()
		}
	}
}

// Plugin is one that was activated. It stays usable when its program starts
// again.
type Plugin struct {
	Name string
	// Implements are the protocols that it knows, such as "VolumeDriver".
	Implements []string

	caller
	found identity
}

// Get returns the plugin of the name, which it activates if need be, waiting
// for one that does not listen yet. A name without a plugin and a plugin that
// does not implement the kind are NotFound and Invalid.
func (s *Set) Get(ctx context.Context, name, kind string) (*Plugin, error) {
	return s.get(ctx, name, kind, true)
}

func (s *Set) get(ctx context.Context, name, kind string, patient bool) (*Plugin, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	p, err := s.activated(ctx, name, patient)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(p.Implements, kind) {
		return nil, fail(Invalid, "plugin %q does not implement %s, but %s; name another one", name, kind, strings.Join(p.Implements, ", "))
	}
	return p, nil
}

// All returns those of the kind that are there and answer soon, by name, and
// what is wrong with others.
func (s *Set) All(ctx context.Context, kind string) ([]*Plugin, []error) {
	names, err := s.dirs.scan()
	if err != nil {
		return nil, []error{err}
	}
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	type answer struct {
		plugin *Plugin
		err    error
	}
	answers := make([]answer, len(names))
	var asked sync.WaitGroup
	for i, name := range names {
		asked.Go(func() {
			p, err := s.activated(ctx, name, false)
			answers[i] = answer{p, err}
		})
	}
	asked.Wait()
	var list []*Plugin
	var failed []error
	for _, a := range answers {
		switch {
		case a.err != nil:
			failed = append(failed, a.err)
		case slices.Contains(a.plugin.Implements, kind):
			list = append(list, a.plugin)
		}
	}
	return list, failed
}

// Known lists the names of those of the kind that were used, without asking any.
func (s *Set) Known(kind string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, sl := range s.known {
		if sl.plugin != nil && slices.Contains(sl.plugin.Implements, kind) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// activated returns the plugin of the name, whatever it implements.
func (s *Set) activated(ctx context.Context, name string, patient bool) (*Plugin, error) {
	if p := s.current(name); p != nil {
		return p, nil
	}
	// Names without a file take no slot, or requests could fill the memory.
	if _, err := s.dirs.find(name); err != nil {
		return nil, err
	}
	sl := s.slot(name)
	select {
	case sl.turn <- struct{}{}:
		defer func() { <-sl.turn }()
	case <-ctx.Done():
		return nil, fail(Unavailable, "plugin %q does not answer: %w", name, ctx.Err())
	}
	if p := s.current(name); p != nil {
		return p, nil // another caller has done it
	}
	p, err := s.activate(ctx, name, patient)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sl.plugin != nil {
		sl.plugin.http.CloseIdleConnections()
	}
	sl.plugin = p
	return p, nil
}

func (s *Set) slot(name string) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.known[name]
	if sl == nil {
		sl = &slot{turn: make(chan struct{}, 1)}
		s.known[name] = sl
	}
	return sl
}

// current returns the plugin if it was activated and its file is the same. A
// file that is not there is one of a plugin that starts again: calls wait for it.
func (s *Set) current(name string) *Plugin {
	s.mu.Lock()
	var p *Plugin
	if sl := s.known[name]; sl != nil {
		p = sl.plugin
	}
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	now, err := identify(p.found.path)
	if err == nil && now != p.found {
		return nil
	}
	return p
}

func (s *Set) activate(ctx context.Context, name string, patient bool) (*Plugin, error) {
	where, err := s.dirs.find(name)
	if err != nil {
		return nil, err
	}
	c, err := where.caller(name)
	if err != nil {
		return nil, err
	}
	p := &Plugin{Name: name, caller: *c, found: where.identity}
	var manifest struct{ Implements []string }
	if err := p.call(ctx, "Plugin.Activate", nil, &manifest, patient); err != nil {
		p.http.CloseIdleConnections()
		return nil, fmt.Errorf("activate plugin %q: %w", name, err)
	}
	p.Implements = manifest.Implements
	return p, nil
}

// identity tells a file from one that took its place.
type identity struct {
	path     string
	inode    uint64
	modified time.Time
}

func identify(path string) (identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return identity{}, err
	}
	return identity{path, inodeOf(info), info.ModTime()}, nil
}

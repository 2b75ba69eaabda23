// Package session keeps the further processes of running containers, execs: what was
// asked for, where each stands, and for some minutes how it ended.
package session

import (
	"sync"
	"time"

	"github.com/tarehq/tare/fault"
)

// Table has the sessions of all containers. It is safe for concurrent use.
type Table struct {
	mu          sync.Mutex
	byID        map[string]*Session
	byContainer map[string]map[string]*Session
	sweeping    *time.Timer // nil unless a session that ended is remembered
	closed      bool
}

// NewTable begins with none.
func NewTable() *Table {
	return &Table{byID: map[string]*Session{}, byContainer: map[string]map[string]*Session{}}
}

// sweepTime is the time between two sweeps. What ended before the last one
// is forgotten by this one, so within five minutes.
const sweepTime = 150 * time.Second

// Add has the table know a session.
func (t *Table) Add(n *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[n.ID] = n
	of := t.byContainer[n.Container]
	if of == nil {
		of = map[string]*Session{}
		t.byContainer[n.Container] = of
	}
	of[n.ID] = n
}

func (t *Table) removeLocked(n *Session) {
	delete(t.byID, n.ID)
	if of := t.byContainer[n.Container]; of != nil {
		if delete(of, n.ID); len(of) == 0 {
			delete(t.byContainer, n.Container)
		}
	}
}

// Find finds a session by its ID.
func (t *Table) Find(id string) (*Session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.byID[id]; ok {
		return n, nil
	}
	return nil, fault.New(fault.NotFound, "No such exec instance: %s", id)
}

// All are the sessions of a container.
func (t *Table) All(container string) []*Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*Session, 0, len(t.byContainer[container]))
	for _, n := range t.byContainer[container] {
		list = append(list, n)
	}
	return list
}

// Of lists the execs of a container that have not ended.
func (t *Table) Of(container string) []string {
	var ids []string
	for _, n := range t.All(container) {
		if n.Result() == nil {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// Forget drops the sessions of a container that is removed.
func (t *Table) Forget(container string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.byContainer[container] {
		t.removeLocked(n)
	}
}

// Close stops the sweeping.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.sweeping != nil {
		t.sweeping.Stop()
	}
}

// Drop forgets a session that is of no use any more.
func (t *Table) Drop(n *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeLocked(n)
}

// End records the exit code of a session, the first that is told, and remembers it
// until the sweep after next.
func (t *Table) End(n *Session, code int) (first bool) {
	first = n.end(code)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLaterLocked()
	return first
}

func (t *Table) sweepLaterLocked() {
	if t.sweeping == nil && !t.closed {
		t.sweeping = time.AfterFunc(sweepTime, t.sweep)
	}
}

// sweep forgets what ended before the last sweep.
func (t *Table) sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweeping = nil
	for _, n := range t.byID {
		n.mu.Lock()
		ended, leaving := n.code != nil, n.leaving
		n.leaving = ended
		n.mu.Unlock()
		switch {
		case leaving:
			t.removeLocked(n)
		case ended:
			t.sweepLaterLocked()
		}
	}
}

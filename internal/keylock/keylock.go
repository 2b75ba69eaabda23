// Package keylock serialises operations on the same key while those on other
// keys go on: one operation at a time per container, without a map of locks
// that only grows.
package keylock

import (
	"context"
	"sync"
)

// Locks is a set of locks by key. The zero value is ready.
type Locks[K comparable] struct {
	mu    sync.Mutex
	locks map[K]*entry
}

type entry struct {
	turn  chan struct{} // holds one token while nobody owns the key
	users int           // owner and waiters
}

// Lock waits for the key, or for ctx. The returned function gives the key
// back and must be called exactly once; it is nil when err is not.
func (l *Locks[K]) Lock(ctx context.Context, key K) (unlock func(), err error) {
	e := l.enter(key)
	select {
	case <-e.turn:
		return func() { e.turn <- struct{}{}; l.leave(key, e) }, nil
	default:
	}
	select {
	case <-e.turn:
		return func() { e.turn <- struct{}{}; l.leave(key, e) }, nil
	case <-ctx.Done():
		l.leave(key, e)
		return nil, context.Cause(ctx)
	}
}

func (l *Locks[K]) enter(key K) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.locks == nil {
		l.locks = make(map[K]*entry)
	}
	e := l.locks[key]
	if e == nil {
		e = &entry{turn: make(chan struct{}, 1)}
		e.turn <- struct{}{}
		l.locks[key] = e
	}
	e.users++
	return e
}

func (l *Locks[K]) leave(key K, e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(l.locks, key)
	}
}

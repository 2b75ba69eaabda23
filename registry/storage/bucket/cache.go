package bucket

import (
	"container/list"
	"sync"
)

// cache remembers values by key, those used last, up to about a number of bytes.
type cache[V any] struct {
	mu    sync.Mutex
	limit int
	size  int
	order list.List // of *cached[V], the last used in front
	byKey map[string]*list.Element
}

type cached[V any] struct {
	key   string
	value V
	size  int
}

func newCache[V any](limit int) *cache[V] {
	return &cache[V]{limit: limit, byKey: map[string]*list.Element{}}
}

func (c *cache[V]) get(key string) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached[V]).value, true
}

// put remembers the value, which has about that many bytes besides its key.
func (c *cache[V]) put(key string, value V, size int) {
	size += len(key) + 200
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeLocked(key)
	if size > c.limit {
		return
	}
	c.byKey[key] = c.order.PushFront(&cached[V]{key, value, size})
	for c.size += size; c.size > c.limit; {
		c.removeLocked(c.order.Back().Value.(*cached[V]).key)
	}
}

func (c *cache[V]) remove(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeLocked(key)
}

func (c *cache[V]) removeLocked(key string) {
	if e, ok := c.byKey[key]; ok {
		c.size -= e.Value.(*cached[V]).size
		c.order.Remove(e)
		delete(c.byKey, key)
	}
}

func (c *cache[V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order.Init()
	clear(c.byKey)
	c.size = 0
}

package dir

import (
	"bytes"
	"container/list"
	"sync"

	"github.com/tarehq/tare/registry/storage"
)

// cacheBytes is how much memory the manifests that were read take.
const cacheBytes = 4 << 20

// cache holds manifests. An entry has the record that it was made from, and
// counts only as long as the database has the same one.
type cache struct {
	mu    sync.Mutex
	limit int
	size  int
	byKey map[string]*list.Element
	order list.List // of *cached, the last used first
}

type cached struct {
	key      string
	record   []byte
	manifest *storage.Manifest
}

func newCache(limit int) *cache { return &cache{limit: limit, byKey: map[string]*list.Element{}} }

func (c *cached) size() int {
	return 512 + len(c.key) + 3*len(c.record) + len(c.manifest.Data) // the record, and what was decoded of it
}

func (c *cache) get(key string, record []byte) *storage.Manifest {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok || !bytes.Equal(e.Value.(*cached).record, record) {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).manifest
}

func (c *cache) put(key string, record []byte, m *storage.Manifest) {
	add := &cached{key, record, m}
	if add.size() > c.limit/4 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byKey[key]; ok {
		c.dropLocked(e)
	}
	c.byKey[key] = c.order.PushFront(add)
	for c.size += add.size(); c.size > c.limit; {
		c.dropLocked(c.order.Back())
	}
}

func (c *cache) dropLocked(e *list.Element) {
	old := c.order.Remove(e).(*cached)
	c.size -= old.size()
	delete(c.byKey, old.key)
}

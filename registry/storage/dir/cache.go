package dir

import (
	"bytes"
	"container/list"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/registry/storage"
)

// cacheBytes is how much memory the manifests that were read take. The largest has
// room: nothing is read from the disk again for each of many readers.
const cacheBytes = 16 << 20

// cachedTags is how many tags are remembered.
const cachedTags = 1024

// cache holds manifests and tags. What was seen in the database counts as long
// as that has not changed since; a manifest also counts when the database still
// has the record that it was made from.
type cache struct {
	changes atomic.Uint64 // of the database; read before it, what is seen is no older

	mu    sync.Mutex
	limit int
	size  int
	byKey map[manifestKey]*list.Element
	order list.List // of *cached, the last used first
	tags  map[tagKey]storage.Tag
	since uint64 // changes that tags are of
}

type manifestKey struct {
	repo   string
	digest digest.Digest
}

type tagKey struct{ repo, tag string }

type cached struct {
	key      manifestKey
	record   []byte
	manifest *storage.Manifest
	seen     uint64 // changes when the record was last found in the database
}

func newCache(limit int) *cache {
	return &cache{limit: limit, byKey: map[manifestKey]*list.Element{}, tags: map[tagKey]storage.Tag{}}
}

func (c *cached) size() int {
	return 512 + len(c.key.repo) + len(c.key.digest) + 3*len(c.record) + len(c.manifest.Data) // the record, and what was decoded of it
}

// fresh gives a manifest that needs no look into the database.
func (c *cache) fresh(key manifestKey) *storage.Manifest {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok || e.Value.(*cached).seen != c.changes.Load() {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).manifest
}

// get gives the manifest of a record that was found after so many changes.
func (c *cache) get(key manifestKey, record []byte, changes uint64) *storage.Manifest {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok || !bytes.Equal(e.Value.(*cached).record, record) {
		return nil
	}
	c.order.MoveToFront(e)
	e.Value.(*cached).seen = changes
	return e.Value.(*cached).manifest
}

func (c *cache) put(key manifestKey, record []byte, m *storage.Manifest, changes uint64) {
	add := &cached{key, record, m, changes}
	if add.size() > c.limit {
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

// tag gives a tag that needs no look into the database.
func (c *cache) tag(key tagKey) (storage.Tag, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since != c.changes.Load() {
		return storage.Tag{}, false
	}
	t, ok := c.tags[key]
	return t, ok
}

// putTag remembers a tag that was found after so many changes.
func (c *cache) putTag(key tagKey, t storage.Tag, changes uint64) {
	if t.Target.Annotations != nil || t.Target.ArtifactType != "" {
		return // of any size
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since != changes || len(c.tags) >= cachedTags {
		clear(c.tags)
		c.since = changes
	}
	c.tags[key] = t
}

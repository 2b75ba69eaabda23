package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/snapshot"
)

// cache remembers what operations came to, below <root>/cache: a file for each
// key. The layers themselves are the daemon's, which keeps those that are
// pinned. A record whose layers are gone is no record.
type cache struct {
	dir    string
	store  Store
	failed func(error) // told when something cannot be saved

	mu      sync.Mutex
	records map[digest.Digest]*Record
	quick   map[digest.Digest]digest.Digest // quick keys → records
	held    map[digest.Digest]int           // by how many jobs
	here    map[digest.Digest]bool          // chains that the daemon has, and keeps while they are some record's
	pinning sync.Mutex                      // held while the daemon is told; before mu

	saver   *time.Timer     // nil when all is saved, or about to be
	unsaved []digest.Digest // records
	saving  sync.WaitGroup
}

// saveAfter is how long a new record is in memory alone: the step that stands on it, or
// the image, does not wait for files and messages. What the daemon has lent it
// keeps meanwhile, and a builder that is killed forgets the record.
const saveAfter = 50 * time.Millisecond

// Record is what is remembered of one operation.
type Record struct {
	Key         digest.Digest
	Quick       []digest.Digest `json:",omitempty"` // the last ones first
	Description string
	Type        string // as BuildKit calls it: "regular", "source.local", "exec.cachemount", …
	Outputs     [][]Layer
	Epoch       time.Time `json:",omitzero"` // that the layers were made with
	Size        int64     // bytes on disk of its own layers, when Measured
	Measured    bool      `json:",omitempty"`
	Created     time.Time
	LastUsed    time.Time
	Uses        int
}

func openCache(ctx context.Context, root string, store Store, failed func(error)) (*cache, error) {
	c := &cache{dir: filepath.Join(root, "cache"), store: store, failed: failed, records: map[digest.Digest]*Record{}, quick: map[digest.Digest]digest.Digest{}, held: map[digest.Digest]int{}, here: map[digest.Digest]bool{}}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	if err := atomicfile.Clean(c.dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var r Record
		data, err := os.ReadFile(filepath.Join(c.dir, e.Name()))
		if err != nil || json.Unmarshal(data, &r) != nil || c.path(r.Key) != filepath.Join(c.dir, e.Name()) {
			continue // a cache may forget
		}
		c.records[r.Key] = &r
		for _, quick := range r.Quick {
			c.quick[quick] = r.Key
		}
	}
	return c, c.pin(ctx)
}

func (c *cache) path(key digest.Digest) string { return filepath.Join(c.dir, key.Encoded()+".json") }

// find returns what is remembered, if its layers are there. It fills in the exact
// key when it was found by the quick one, and remembers the quick one otherwise.
func (c *cache) find(ctx context.Context, k *keys) []*output {
	c.mu.Lock()
	key := k.exact
	if key == "" {
		key = c.quick[k.quick]
	}
	r := c.records[key]
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	outputs := make([]*output, len(r.Outputs))
	for i, layers := range r.Outputs {
		o := &output{layers: layers, key: outputKey(key, i)}
		if !c.has(ctx, key, o.chain()) {
			return nil
		}
		outputs[i] = o
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r = c.records[key]; r == nil { // forgotten meanwhile: its layers go
		return nil
	}
	used := *r
	used.LastUsed = time.Now().UTC()
	used.Uses++
	k.exact = key
	if c.addQuickLocked(&used, k.quick) {
		_ = c.write(&used) // what is not remembered is hashed again
	}
	c.records[key] = &used
	return outputs
}

// has tells whether the chain of a record is here.
func (c *cache) has(ctx context.Context, key, chain digest.Digest) bool {
	c.mu.Lock()
	here := c.here[chain]
	c.mu.Unlock()
	if here || chain == "" {
		return true
	}
	there, err := c.store.Has(ctx, chain)
	if err != nil || !there {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.records[key] != nil { // or else it may go
		c.here[chain] = true
	}
	return true
}

// maxQuick bounds the quick keys of a record.
const maxQuick = 16

func (c *cache) addQuickLocked(r *Record, quick digest.Digest) bool {
	if quick == "" || slices.Contains(r.Quick, quick) {
		return false
	}
	r.Quick = append([]digest.Digest{quick}, r.Quick...)
	for len(r.Quick) > maxQuick {
		delete(c.quick, r.Quick[len(r.Quick)-1])
		r.Quick = r.Quick[:len(r.Quick)-1]
	}
	c.quick[quick] = r.Key
	return true
}

func (c *cache) write(r *Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return atomicfile.Write(c.path(r.Key), data, 0o600)
}

// hold has a record be in use until release.
func (c *cache) hold(key digest.Digest) (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[key]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.held[key]--; c.held[key] == 0 {
			delete(c.held, key)
		}
	}
}

func (c *cache) inUse(key digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held[key] > 0
}

// add remembers what an operation came to. It is saved soon.
func (c *cache) add(k keys, description, kind string, outputs []*output, epoch time.Time) {
	now := time.Now().UTC()
	r := &Record{Key: k.exact, Description: description, Type: kind, Epoch: epoch, Created: now, LastUsed: now}
	for _, o := range outputs {
		r.Outputs = append(r.Outputs, o.layers)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addQuickLocked(r, k.quick)
	c.records[r.Key] = r
	if c.unsaved = append(c.unsaved, r.Key); c.saver == nil {
		c.saving.Add(1)
		c.saver = time.AfterFunc(saveAfter, c.save)
	}
}

// save writes the records that are new, and tells the daemon of their layers.
func (c *cache) save() {
	defer c.saving.Done()
	c.mu.Lock()
	list := c.unsaved
	c.unsaved, c.saver = nil, nil
	var err error
	for _, key := range list {
		if r := c.records[key]; r != nil { // not forgotten meanwhile
			err = errors.Join(err, c.write(r))
		}
	}
	c.mu.Unlock()
	if err = errors.Join(err, c.pin(context.Background())); err != nil {
		c.failed(fmt.Errorf("what was built is not remembered: %w", err))
	}
}

// close returns when all is saved.
func (c *cache) close() {
	c.mu.Lock()
	now := c.saver != nil && c.saver.Stop()
	c.mu.Unlock()
	if now {
		c.save()
	}
	c.saving.Wait()
}

// pin tells the daemon which chains are needed.
func (c *cache) pin(ctx context.Context) error {
	c.pinning.Lock()
	defer c.pinning.Unlock()
	return c.store.Pin(ctx, c.chains())
}

func (c *cache) chains() []digest.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []digest.Digest{}
	for _, r := range c.records {
		for _, layers := range r.Outputs {
			if len(layers) > 0 {
				list = append(list, layers[len(layers)-1].Chain)
			}
			for _, l := range layers { // where its archive can be made again
				if l.MadeOn != nil {
					list = append(list, snapshot.ChainID(*l.MadeOn, l.DiffID))
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// measure finds how large the records are of which that is not known yet. Builds
// do not wait for it.
func (c *cache) measure(ctx context.Context) error {
	for _, r := range c.list() {
		if r.Measured {
			continue
		}
		size := int64(0)
		for _, layers := range r.Outputs {
			if len(layers) == 0 {
				continue
			}
			n, err := c.blocks(ctx, layers[len(layers)-1].Chain)
			if err != nil && c.knows(r.Key) { // or else the layer went with it
				return err
			}
			size += n
		}
		c.mu.Lock()
		if now := c.records[r.Key]; now != nil {
			known := *now
			known.Size, known.Measured = size, true
			c.records[r.Key] = &known
			_ = c.write(&known) // or it is measured again
		}
		c.mu.Unlock()
	}
	return nil
}

func (c *cache) knows(key digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.records[key] != nil
}

// blocks is what a layer takes on disk. Where trees hold what is below, too, the
// store knows.
func (c *cache) blocks(ctx context.Context, chain digest.Digest) (int64, error) {
	there, err := c.store.Has(ctx, chain)
	if err != nil || !there {
		return 0, err
	}
	m, err := c.store.View(ctx, chain)
	if err != nil {
		return 0, err
	}
	if m.Dir != "" || len(m.Lower) == 0 {
		return c.store.Size(ctx, chain)
	}
	return blocks(m.Lower[0])
}

// list returns copies of the records, those that were used last first.
func (c *cache) list() []Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Record, 0, len(c.records))
	for _, r := range c.records {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b Record) int { return b.LastUsed.Compare(a.LastUsed) })
	return list
}

// forget drops records; the daemon lets their layers go.
func (c *cache) forget(ctx context.Context, list []digest.Digest) error {
	c.mu.Lock()
	var err error
	for _, key := range list {
		if r := c.records[key]; r != nil {
			for _, quick := range r.Quick {
				delete(c.quick, quick)
			}
			for _, layers := range r.Outputs {
				if len(layers) > 0 {
					delete(c.here, layers[len(layers)-1].Chain) // another record may have it, and asks again
				}
			}
		}
		delete(c.records, key)
		if e := os.Remove(c.path(key)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	c.mu.Unlock()
	return errors.Join(err, c.pin(ctx))
}

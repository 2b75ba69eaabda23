package dir

import (
	"os"
	"slices"
	"sync"

	"github.com/tarehq/tare/internal/atomicfile"
	"go.etcd.io/bbolt"
)

// group lets calls that wait for the disk at the same time share one wait. The
// first one works at once; those that come meanwhile are the next batch. Nobody
// waits for company.
type group[C call] struct {
	run   func([]C)
	mu    sync.Mutex
	queue []C
	once  sync.Once
	turn  chan struct{}
}

type call interface{ finished() chan struct{} }

// do returns when run was given the call.
func (g *group[C]) do(c C) {
	g.once.Do(func() { g.turn = make(chan struct{}, 1) })
	g.mu.Lock()
	g.queue = append(g.queue, c)
	g.mu.Unlock()
	select {
	case <-c.finished():
		return
	case g.turn <- struct{}{}:
	}
	g.mu.Lock()
	batch := g.queue
	g.queue = nil
	g.mu.Unlock()
	if len(batch) > 0 {
		g.run(batch)
		for _, c := range batch {
			close(c.finished())
		}
	}
	<-g.turn
	<-c.finished()
}

// change is a step of a transaction. It fails before it has changed anything,
// or because of the database, which fails the whole transaction.
type change struct {
	apply func(*bbolt.Tx) error
	names bool // of manifests and tags, which index.json has
	err   error
	done  chan struct{}
}

func (c *change) finished() chan struct{} { return c.done }

// broken is an error that forbids to go on with a transaction.
type broken struct{ error }

func (b broken) Unwrap() error { return b.error }

// update applies the change in a transaction and returns when it is on disk.
func (s *Storage) update(apply func(*bbolt.Tx) error) error {
	return s.change(&change{apply: apply, done: make(chan struct{})})
}

// updateNames is update of what index.json has.
func (s *Storage) updateNames(apply func(*bbolt.Tx) error) error {
	return s.change(&change{apply: apply, names: true, done: make(chan struct{})})
}

func (s *Storage) change(c *change) error {
	s.commit.do(c)
	return explain(c.err)
}

func (s *Storage) runChanges(batch []*change) {
	var err error
	if slices.ContainsFunc(batch, func(c *change) bool { return c.names }) {
		err = s.mark()
		defer s.index.marked()
	}
	if err == nil {
		err = s.db.Update(func(tx *bbolt.Tx) error {
			for _, c := range batch {
				c.err = c.apply(tx)
				if b, ok := c.err.(broken); ok {
					return b.error
				}
			}
			return nil
		})
		s.cache.changes.Add(1) // before it is acknowledged
	}
	if err == nil {
		return
	}
	for _, c := range batch {
		if c.err == nil {
			c.err = err
		}
	}
}

// naming waits until the names in a directory are on disk.
type naming struct {
	err  error
	done chan struct{}
}

func (n *naming) finished() chan struct{} { return n.done }

// syncNames returns when the names that were made in the directory survive
// power loss.
func (s *Storage) syncNames(dir string) error {
	g, ok := s.names.Load(dir)
	if !ok {
		g, _ = s.names.LoadOrStore(dir, &group[*naming]{run: func(batch []*naming) {
			err := atomicfile.SyncDir(dir)
			for _, n := range batch {
				n.err = err
			}
		}})
	}
	n := &naming{done: make(chan struct{})}
	g.(*group[*naming]).do(n)
	return n.err
}

// move is os.Rename that does not stay behind when both are names of one file.
func move(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if err := os.Remove(from); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

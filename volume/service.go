package volume

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/internal/plugin"
)

// Config is what a Service is made from. All fields are needed unless said.
type Config struct {
	DataRoot string
	Plugins  *plugin.Set // of drivers; nil for none
	Events   *event.Log
	Log      *slog.Logger
}

// Users tells which containers use each volume, running or not, by their IDs.
type Users func() map[string][]string

// Service keeps volumes. It is safe for concurrent use: operations on one volume
// take turns, reads never wait for them.
type Service struct {
	root    string
	plugins *plugin.Set
	events  *event.Log
	log     *slog.Logger
	ops     keylock.Locks[string] // one operation at a time per volume
	users   atomic.Pointer[Users]
	pruning sync.Mutex

	freezer atomic.Pointer[Freezer]
	freezes keylock.Locks[string] // one copy at a time for which a container stands still

	mu      sync.RWMutex
	volumes map[string]Record
	holds   map[string][]string          // by volume: who is being made to use it
	mounts  map[string]map[string]string // by volume that has to be mounted: who runs with it, and where it lies

	background sync.WaitGroup // deletions
}

// Open reads the volumes and takes away what a crash left of others.
func Open(_ context.Context, c Config) (*Service, error) {
	s := &Service{root: filepath.Join(c.DataRoot, "volumes"), plugins: c.Plugins, events: c.Events, log: c.Log,
		volumes: map[string]Record{}, holds: map[string][]string{}, mounts: map[string]map[string]string{}}
	return s, s.load()
}

// Close waits until nothing of the service runs any more, or for ctx.
func (s *Service) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() { s.background.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// SetUsers tells the service whom to ask for the containers that use volumes.
func (s *Service) SetUsers(users Users) { s.users.Store(&users) }

// usersOf lists who uses each volume: the containers, and those being made. Who
// is made between the two looks is in the second one.
func (s *Service) usersOf() map[string][]string {
	s.mu.RLock()
	held := make(map[string][]string, len(s.holds))
	for name, holders := range s.holds {
		held[name] = slices.Clone(holders)
	}
	s.mu.RUnlock()
	if ask := s.users.Load(); ask != nil {
		for name, ids := range (*ask)() {
			for _, id := range ids {
				if !slices.Contains(held[name], id) {
					held[name] = append(held[name], id)
				}
			}
		}
	}
	return held
}

// tell tells the world what happened to a volume.
func (s *Service) tell(r Record, action events.Action) {
	s.events.Publish(events.VolumeEventType, action, events.Actor{ID: r.Name, Attributes: map[string]string{"driver": r.Driver}})
}

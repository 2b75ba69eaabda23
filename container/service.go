package container

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/device"
	"github.com/tarehq/tare/container/links"
	"github.com/tarehq/tare/container/listing"
	"github.com/tarehq/tare/container/logbook"
	"github.com/tarehq/tare/container/mounts"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/container/stats"
	"github.com/tarehq/tare/container/users"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/internal/tasks"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/supervise"
	"github.com/tarehq/tare/volume"
)

// Record is what is known of one container.
type Record = record.Record

// Images finds the image of a new container.
type Images interface {
	ResolvePlatform(ctx context.Context, ref, platform string) (catalog.Image, error)
	ID(ref string) digest.Digest
	Unpacked(ctx context.Context, img catalog.Image) (digest.Digest, error)
	UnpackManifest(ctx context.Context, manifest ocispec.Descriptor) (digest.Digest, error)
}

// Commits makes images of what containers changed.
type Commits interface {
	Commit(ctx context.Context, diff archive.Diff, o image.CommitOptions) (id string, err error)
}

// Snapshots makes and drops a container's writable layer.
type Snapshots interface {
	Prepare(containerID string, chain digest.Digest) (snapshot.Mount, error)
	Mount(containerID string) (snapshot.Mount, error)
	CanLimit() error
	Limit(containerID string, bytes uint64) error
	Stage(containerID string, bytes uint64) (*snapshot.Staged, error)
	ReadOnly(chain digest.Digest) (snapshot.Mount, error)
	View(containerID string) (*snapshot.View, error)
	Remove(containerID string) error
	Changes(containerID string) (*snapshot.Changes, error)
	Active() []string
	Usage(ctx context.Context, containerID string) (changed, all int64, err error)
	Driver() string
}

// Config is what a Service is made from. All fields are needed unless said.
type Config struct {
	DataRoot, ExecRoot string
	Images             Images
	Commits            Commits
	Snapshots          Snapshots
	Networks           *network.Service
	Volumes            *volume.Service
	Launcher           *supervise.Launcher
	Events             *event.Log
	Defaults           *create.Defaults
	InitPath           string // program for --init; "" refuses it
	CgroupParent       string // of containers that name none
	Systemd            bool   // makes the control groups; CgroupParent is a slice
	Realtime           Realtime
	Confinement        Confinement
	LogDriver          string // the same; "" is json-file
	LogOpts            map[string]string
	LinkEnv            bool       // tell of links by variables too
	CDI                device.CDI // devices that are asked for by name
	IDs                users.IDs
	Log                *slog.Logger
}

// Service runs containers. It is safe for concurrent use: operations on one
// container take turns, reads never wait for them.
type Service struct {
	// What there is to ask of containers beside what a Service does to one.
	Listing     *listing.Listing
	Execs       *Execs
	Health      *Health
	Logbook     *logbook.Book
	Stats       *stats.Sampler
	Processes   *Processes
	Mounts      *mounts.Maker
	Files       *Files
	Checkpoints *Checkpoints
	Places      *Places
	Pruning     *Pruning

	cfg     Config
	store   *record.Store
	bundles bundles
	host    host
	ops     keylock.Locks[string] // one operation at a time per container

	links   *links.Table
	users   *users.Allotment
	lives   lives
	remains *remains

	ending atomic.Bool  // the daemon stops its containers, and none is started again
	tasks  *tasks.Tasks // the goroutines that follow running containers
}

// Open reads the containers and takes over those that run. What an earlier
// daemon left half-done is finished or taken back.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	if err := spec.Warm(); err != nil {
		return nil, err
	}
	host, err := lookAtHost()
	if err != nil {
		return nil, err
	}
	if err := cfg.Realtime.check(host.groups); err != nil {
		return nil, err
	}
	st, err := record.Open(filepath.Join(cfg.DataRoot, "containers"), cfg.Log)
	if err != nil {
		return nil, err
	}
	s, err := assemble(cfg, st, host)
	if err != nil {
		return nil, err
	}
	if err := s.bundles.open(); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	if err := (&takeover{s}).run(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// assemble makes the service of its parts. Nothing goes on yet but the delivery
// of removed containers' logs.
func assemble(cfg Config, st *record.Store, h host) (*Service, error) {
	s := &Service{cfg: cfg, store: st, host: h, links: links.New(st, cfg.Log), users: users.New(cfg.IDs, st), tasks: tasks.New(),
		bundles: bundles{filepath.Join(cfg.ExecRoot, "c"), cfg.Launcher, cfg.Log}}
	for _, r := range st.All() {
		if r.Labels != nil {
			r.Labels.Keep()
		}
	}
	s.remains = newRemains(&s.bundles)
	s.tasks.Go(func() { s.remains.run(s.tasks.Closing()) })
	s.Stats = stats.New(st, s.bundles.dir, h.groups, s.tasks)
	s.Listing = &listing.Listing{Store: st, Networks: cfg.Networks, Links: s.links, Images: cfg.Images, Layers: cfg.Snapshots}
	s.Mounts = &mounts.Maker{Store: st, Volumes: cfg.Volumes, Images: cfg.Images, Layers: cfg.Snapshots, Events: cfg.Events}
	s.Execs = newExecs(s)
	s.Health = &Health{containers: s, probers: map[string]*prober{}}
	s.Processes, s.Files, s.Checkpoints, s.Places, s.Pruning = &Processes{s}, &Files{s}, &Checkpoints{s}, &Places{s}, &Pruning{containers: s}
	var err error
	s.Logbook, err = logbook.New(logbook.Config{Store: st, Spool: filepath.Join(cfg.DataRoot, "log-spool"), Driver: cfg.LogDriver, Options: cfg.LogOpts,
		Over: s.lives.over, Tasks: s.tasks, Log: cfg.Log})
	return s, err
}

// Close lets go of the running containers, which go on, and returns when
// nothing of the service runs any more.
func (s *Service) Close(ctx context.Context) error {
	s.tasks.Close()
	s.Health.close()
	s.Execs.sessions.Close()
	s.lives.letGo()
	err := errors.Join(s.Logbook.Close(ctx), s.tasks.Wait(ctx))
	s.remains.clear()
	return err
}

// lock finds a container and takes its operation lock. The record is as it is
// under the lock.
func (s *Service) lock(ctx context.Context, nameOrID string) (r Record, unlock func(), err error) {
	if r, err = s.store.Find(nameOrID); err != nil {
		return r, nil, err
	}
	if unlock, err = s.ops.Lock(ctx, r.ID); err != nil {
		return r, nil, err
	}
	if r, err = s.store.Find(r.ID); err == nil && !r.State.Up() {
		err = s.lives.of(r.ID).told(ctx)
	}
	if err != nil {
		unlock()
		return r, nil, err
	}
	return r, unlock, nil
}

// publish tells the world what happened to a container, by the name that it has
// now.
func (s *Service) publish(r Record, action events.Action, extra ...string) {
	if now, err := s.store.Find(r.ID); err == nil {
		r = now
	}
	attrs := make(map[string]string, len(r.Config.Labels)+2+len(extra)/2)
	for k, v := range r.Config.Labels {
		attrs[k] = v
	}
	attrs["image"], attrs["name"] = r.Config.Image, r.Name
	for i := 0; i+1 < len(extra); i += 2 {
		attrs[extra[i]] = extra[i+1]
	}
	s.cfg.Events.Publish(events.ContainerEventType, action, events.Actor{ID: r.ID, Attributes: attrs})
}

// Users names the containers that were made from each image, for who wants to
// remove one. It is an catalog.InUse.
func (s *Service) Users() map[digest.Digest][]catalog.Use {
	users := map[digest.Digest][]catalog.Use{}
	for _, r := range s.store.All() {
		use := catalog.Use{Container: r.ID, Running: r.State.Live()}
		users[r.Image.ID] = append(users[r.Image.ID], use)
		for _, img := range r.MountedImages {
			users[img.ID] = append(users[img.ID], use)
		}
	}
	return users
}

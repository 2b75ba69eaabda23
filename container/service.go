package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/internal/nofile"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/supervise"
)

// Images finds the image of a new container.
type Images interface {
	ResolvePlatform(ctx context.Context, ref, platform string) (image.Image, error)
	ID(ref string) digest.Digest
	Unpacked(ctx context.Context, img image.Image) (digest.Digest, error)
	UnpackManifest(ctx context.Context, manifest ocispec.Descriptor) (digest.Digest, error)
	Commit(ctx context.Context, diff archive.Diff, o image.CommitOptions) (id string, err error)
}

// Snapshots makes and drops a container's writable layer.
type Snapshots interface {
	Prepare(containerID string, chain digest.Digest) (snapshot.Mount, error)
	Mount(containerID string) (snapshot.Mount, error)
	CanLimit() error
	Limit(containerID string, bytes uint64) error
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
	Snapshots          Snapshots
	Networks           *network.Service
	Launcher           *supervise.Launcher
	Events             *event.Log
	Defaults           *Defaults
	InitPath           string // program for --init; "" refuses it
	CgroupParent       string // of containers that name none
	LogDriver          string // the same; "" is json-file
	LogOpts            map[string]string
	LinkEnv            bool // tell of links by variables too
	CDI                CDI  // devices that are asked for by name
	Log                *slog.Logger
}

// Service runs containers. It is safe for concurrent use: operations on one
// container take turns, reads never wait for them.
type Service struct {
	cfg        Config
	store      *store
	boot       string                // random(4) boot_id
	countsSwap bool                  // the kernel can limit it
	cgroup2    bool                  // the host has the unified hierarchy alone, cgroups(7)
	files      *specs.POSIXRlimit    // limit of open files of containers that ask for none
	ops        keylock.Locks[string] // one operation at a time per container

	linked linked

	mu     sync.Mutex
	lives  map[string]*live
	execs  *Execs
	logs   *Logbook
	stats  *Stats
	health *Health

	ending   atomic.Bool // the daemon stops its containers, and none is started again
	closing  chan struct{}
	watchers sync.WaitGroup // goroutines that follow running containers
}

// Open reads the containers and takes over those that run. What an earlier
// daemon left half-done is finished or taken back.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	if err := spec.Warm(); err != nil {
		return nil, err
	}
	limit, err := nofile.Original()
	if err != nil {
		return nil, fmt.Errorf("cannot find the limit of open files: %w", err)
	}
	if err := makeBundlesDir(filepath.Join(cfg.ExecRoot, "c")); err != nil {
		return nil, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	st, err := openStore(filepath.Join(cfg.DataRoot, "containers"), cfg.Log)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, store: st, boot: strings.TrimSpace(string(boot)), lives: map[string]*live{}, closing: make(chan struct{}),
		files: &specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: limit.Cur, Hard: limit.Max}}
	groups, err := cgroupfs.Host()
	if err != nil {
		return nil, err
	}
	s.cgroup2 = groups.Unified()
	for _, r := range st.all() {
		s.linked.add(&r)
	}
	s.countsSwap = countsSwap(s.cgroup2)
	s.stats = newStats(s, groups)
	s.execs = newExecs(s)
	s.health = &Health{containers: s, probers: map[string]*prober{}}
	if s.logs, err = newLogbook(s); err != nil {
		return nil, err
	}
	if err := s.takeOver(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// countsSwap looks whether the kernel accounts for swap: for version 1 of control
// groups it has to be told so when it boots (swapaccount=1).
func countsSwap(cgroup2 bool) bool {
	file := "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"
	if cgroup2 {
		group, err := os.ReadFile("/proc/self/cgroup") // "0::/path"; the root group has no limits
		_, path, ok := strings.Cut(strings.TrimSpace(string(group)), "0::")
		if err != nil || !ok || path == "/" {
			return true
		}
		file = filepath.Join("/sys/fs/cgroup", path, "memory.swap.max")
	}
	_, err := os.Stat(file)
	return err == nil
}

// makeBundlesDir makes the directory of all bundles, closed to everybody but
// root.
func makeBundlesDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700) // it may be of an earlier version
}

// Health is what looks after the containers' health checks.
func (s *Service) Health() *Health { return s.health }

// Close lets go of the running containers, which go on, and returns when
// nothing of the service runs any more.
func (s *Service) Close(ctx context.Context) error {
	close(s.closing)
	s.health.close()
	s.execs.close()
	s.mu.Lock()
	for _, l := range s.lives {
		l.letGo()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.watchers.Wait(); close(done) }()
	err := s.logs.forward.Close(ctx)
	select {
	case <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lock finds a container and takes its operation lock. The record is as it is
// under the lock.
func (s *Service) lock(ctx context.Context, nameOrID string) (r Record, unlock func(), err error) {
	if r, err = s.store.find(nameOrID); err != nil {
		return r, nil, err
	}
	if unlock, err = s.ops.Lock(ctx, r.ID); err != nil {
		return r, nil, err
	}
	if r, err = s.store.find(r.ID); err == nil && !r.State.Up() {
		err = s.live(r.ID).told(ctx)
	}
	if err != nil {
		unlock()
		return r, nil, err
	}
	return r, unlock, nil
}

// bundleDir is where the container's bundle and supervising process live
// while it runs.
func (s *Service) bundleDir(id string) string { return filepath.Join(s.cfg.ExecRoot, "c", id) }

// live is what is known of a container only while this daemon runs.
type live struct {
	mu      sync.Mutex
	run     *run         // the present one; nil when none
	pending []attachment // clients that attached before the start
	waiters map[*waiter]struct{}
	held    bool          // the policy rests for the end of this run: it is being restarted
	giveUp  chan struct{} // closed to cancel the next try of a restart policy
	wait    time.Duration // the restart policy's last wait
}

// run is one run of a container. Its fields are guarded by live.mu.
type run struct {
	keeper  *supervise.Keeper // connection to the supervising process
	refused error             // why there is none although the container runs
	ended   chan struct{}     // closed when the run is over and recorded
}

func (s *Service) live(id string) *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lives[id]
	if l == nil {
		l = &live{waiters: map[*waiter]struct{}{}}
		s.lives[id] = l
	}
	return l
}

// letGo drops the connection to the supervising process.
func (l *live) letGo() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.run != nil && l.run.keeper != nil {
		l.run.keeper.Close()
	}
	if l.giveUp != nil {
		close(l.giveUp)
		l.giveUp = nil
	}
}

// told waits until the end of a run that is on record has been told of too, so
// that nothing comes before its events.
func (l *live) told(ctx context.Context) error {
	l.mu.Lock()
	run := l.run
	l.mu.Unlock()
	if run == nil {
		return nil
	}
	select {
	case <-run.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// running returns the supervising process of a container that runs.
func (s *Service) running(r Record) (*supervise.Keeper, <-chan struct{}, error) {
	l := s.live(r.ID)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.run == nil && r.State == Restarting:
		return nil, nil, fault.New(fault.Conflict, "Container %s is restarting, wait until the container is running", r.ID)
	case l.run == nil:
		return nil, nil, notRunning(r)
	case l.run.keeper == nil:
		return nil, nil, l.run.refused
	}
	return l.run.keeper, l.run.ended, nil
}

// ofRun gives an error of the supervising process the sense that the end of the
// run has given it: one that is gone has mostly ended with its container.
func ofRun(r Record, ended <-chan struct{}, err error) error {
	if !errors.Is(err, fault.Unavailable) {
		return err
	}
	select {
	case <-ended:
		return notRunning(r)
	case <-time.After(settleTime):
		return err
	}
}

func notRunning(r Record) error {
	return fault.New(fault.Conflict, "container %s is not running", r.ID)
}

// publish tells the world what happened to a container, by the name that it has
// now.
func (s *Service) publish(r Record, action events.Action, extra ...string) {
	if now, err := s.store.find(r.ID); err == nil {
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

// Counts tells how many containers are in which of Docker's three classes.
func (s *Service) Counts() (running, paused, stopped int) {
	for _, r := range s.store.all() {
		switch {
		case r.State == Paused:
			paused++
		case r.State.Live():
			running++
		default:
			stopped++
		}
	}
	return running, paused, stopped
}

// Users names the containers that were made from each image, for who wants to
// remove one. It is an image.InUse.
func (s *Service) Users() map[digest.Digest][]image.Use {
	users := map[digest.Digest][]image.Use{}
	for _, r := range s.store.all() {
		users[r.Image.ID] = append(users[r.Image.ID], image.Use{Container: r.ID, Running: r.State.Live()})
	}
	return users
}

// waiter is one client that waits for a container.
type waiter struct {
	condition wire.WaitCondition
	answer    chan wire.WaitResponse // holds one
}

// Wait registers for an end of the container and returns at once; the answer
// comes on the channel. The default condition is "not-running", which a
// container that is not running meets right away.
func (s *Service) Wait(ctx context.Context, nameOrID string, condition wire.WaitCondition) (<-chan wire.WaitResponse, error) {
	switch condition {
	case "":
		condition = wire.WaitConditionNotRunning
	case wire.WaitConditionNotRunning, wire.WaitConditionNextExit, wire.WaitConditionRemoved:
	default:
		return nil, fault.New(fault.Invalid, "invalid condition: %q", condition)
	}
	found, err := s.store.find(nameOrID)
	if err != nil {
		return nil, err
	}
	l := s.live(found.ID)
	l.mu.Lock()
	defer l.mu.Unlock()
	// Who ends a run or removes a container changes the record first and
	// tells the waiters after, under this lock: nobody is missed.
	r, err := s.store.find(found.ID)
	if err != nil {
		return nil, err
	}
	w := &waiter{condition, make(chan wire.WaitResponse, 1)}
	if condition == wire.WaitConditionNotRunning && !r.State.Live() {
		w.answer <- waitResponse(r)
		return w.answer, nil
	}
	l.waiters[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiters, w)
	})
	return w.answer, nil
}

func waitResponse(r Record) wire.WaitResponse {
	w := wire.WaitResponse{StatusCode: int64(r.ExitCode)}
	if r.Error != "" {
		w.Error = &wire.WaitExitError{Message: r.Error}
	}
	return w
}

// tell answers those who wait for what has just happened: an exit, or with
// removed the removal, which satisfies every condition.
func (l *live) tell(r Record, removed bool) {
	if removed { // an error of the start or the run is no error of the removal
		r.Error = ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.waiters {
		if removed || w.condition != wire.WaitConditionRemoved {
			w.answer <- waitResponse(r)
			delete(l.waiters, w)
		}
	}
}

// tellFailure answers everybody who waits for a removal that did not succeed.
func (l *live) tellFailure(r Record, err error) {
	r.Error = "cannot remove the container: " + err.Error()
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.waiters {
		w.answer <- waitResponse(r)
		delete(l.waiters, w)
	}
}

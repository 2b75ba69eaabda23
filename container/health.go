package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/healthcheck"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/session"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/supervise"
)

// Health watches over the running containers that have a health check: each has
// a prober with one timer, and a goroutine only while its probe runs. The
// results stand in the container's record, in memory, and in its bundle, which
// lives as long as the run: a daemon that dies leaves them to the next, and no
// probe syncs anything. Health is safe for concurrent use.
type Health struct {
	containers *Service

	mu      sync.Mutex
	probers map[string]*prober // by container
	closed  bool
	late    int            // how many probes were overdue when this daemon began
	probes  sync.WaitGroup // those under way

	checks, failed atomic.Uint64 // results so far, and those that were no success
}

// prober checks one run of a container.
type prober struct {
	container string
	check     healthcheck.Check
	started   time.Time   // of the run
	timer     *time.Timer // to the next probe
	over      context.Context
	end       context.CancelFunc
}

const (
	// probeStart bounds the start of a probe, which its own time-out does not count.
	probeStart = 30 * time.Second
	// probeEnd bounds the wait for a probe that was killed. One that stands still
	// with its container does not die before that goes on.
	probeEnd = 3 * time.Second
	// lateStep is the time from one overdue probe to the next: about what the start
	// of one takes of a processor.
	lateStep = 10 * time.Millisecond
	// healthFile is the file in the bundle.
	healthFile = "health.json"
)

// begin watches over a run that has just begun.
func (h *Health) begin(r Record) {
	if c, ok := healthcheck.Of(r.Config); ok {
		h.watch(r, c, c.Next(wire.Starting, 0))
	}
}

// resume watches over a run that an earlier daemon began. The next probe comes
// when it is due. Those that are overdue follow each other: after an outage that is
// all of them.
func (h *Health) resume(r Record) {
	c, ok := healthcheck.Of(r.Config)
	if !ok || r.Health == nil {
		return
	}
	first := c.Due(r.StartedAt, r.Health, time.Now())
	if first == 0 {
		h.mu.Lock()
		first = time.Duration(h.late) * lateStep
		h.late++
		h.mu.Unlock()
	}
	h.watch(r, c, first)
}

func (h *Health) watch(r Record, c healthcheck.Check, first time.Duration) {
	p := &prober{container: r.ID, check: c, started: r.StartedAt}
	p.over, p.end = context.WithCancel(context.Background())
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	if old := h.probers[r.ID]; old != nil {
		old.stop()
	}
	h.probers[r.ID] = p
	p.timer = time.AfterFunc(first, func() { h.due(p) })
}

// stop ends the prober; a probe under way is killed and leaves no result. It is
// called under Health.mu.
func (p *prober) stop() {
	p.timer.Stop()
	p.end()
}

// ended stops the probes of a container whose run is over.
func (h *Health) ended(container string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.probers[container]; p != nil {
		p.stop()
		delete(h.probers, container)
	}
}

// close stops all probes and waits for those under way.
func (h *Health) close() {
	h.mu.Lock()
	h.closed = true
	for _, p := range h.probers {
		p.stop()
	}
	h.mu.Unlock()
	h.probes.Wait()
}

// due makes a probe and sets the timer for the next.
func (h *Health) due(p *prober) {
	h.mu.Lock()
	if h.closed || p.over.Err() != nil {
		h.mu.Unlock()
		return
	}
	h.probes.Add(1)
	h.mu.Unlock()
	defer h.probes.Done()

	status := wire.Starting
	r, err := h.containers.store.Find(p.container)
	if err == nil && r.Health != nil {
		status = r.Health.Status
	}
	if err == nil && r.State == record.Running { // else it is paused
		if keeper, _, err := h.containers.lives.running(r); err == nil { // else it is not known how it fares
			if result := h.probe(p, r, keeper); result != nil {
				h.count(result)
				status = h.record(p, result, status)
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.over.Err() == nil {
		p.timer.Reset(p.check.Next(status, time.Since(p.started)))
	}
}

// count adds a result to the counts.
func (h *Health) count(result *wire.HealthcheckResult) {
	h.checks.Add(1)
	if result.ExitCode != 0 {
		h.failed.Add(1)
	}
}

// Counts tells how many probes have had a result since the daemon began, and how
// many of them found the container wanting.
func (h *Health) Counts() (all, failed uint64) { return h.checks.Load(), h.failed.Load() }

// probe runs the check once; nil if nothing was found out.
func (h *Health) probe(p *prober, r Record, keeper *supervise.Keeper) *wire.HealthcheckResult {
	result := &wire.HealthcheckResult{Start: time.Now(), ExitCode: -1}
	id := idgen.New()
	err := h.launch(p, r, keeper, id)
	if p.over.Err() != nil {
		_, _ = endProbe(keeper, id)
		return nil
	}
	if err != nil {
		result.End, result.Output = time.Now(), err.Error()
		return result
	}
	ctx, cancel := context.WithTimeout(p.over, p.check.Timeout)
	defer cancel()
	exit, err := keeper.Execs.Wait(ctx, id)
	late := err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded)
	if err != nil && ctx.Err() != nil {
		exit, err = endProbe(keeper, id)
	}
	if err == nil {
		h.containers.publish(r, events.ActionExecDie, "execID", id, "exitCode", strconv.Itoa(exit.Code))
	}
	result.End, result.Output = time.Now(), string(exit.Output)
	if exit.More {
		result.Output += "..."
	}
	switch {
	case p.over.Err() != nil:
		return nil
	case late:
		text := fmt.Sprintf("Health check exceeded timeout (%v)", p.check.Timeout)
		if result.Output != "" {
			text += ": " + result.Output
		}
		result.Output = text
	case err != nil: // the connection is gone
		return nil
	default:
		result.ExitCode = exit.Code
	}
	return result
}

// launch starts the probe's process, which is nobody's exec.
func (h *Health) launch(p *prober, r Record, keeper *supervise.Keeper, id string) error {
	s := h.containers
	process, err := s.Execs.process(&r, &wire.ExecCreateRequest{Cmd: p.check.Argv}, r.Config.User)
	if err != nil {
		return err
	}
	s.publish(r, execAction(events.ActionExecCreate, p.check.Argv), "execID", id)
	s.publish(r, execAction(events.ActionExecStart, p.check.Argv), "execID", id)
	ctx, cancel := context.WithTimeout(p.over, probeStart)
	defer cancel()
	_, err = keeper.Execs.Start(ctx, supervise.ExecConfig{
		ID: id, Process: *process, Keep: healthcheck.MaxOutput, Note: session.Note{Probe: true}.Encode(),
	}, nil)
	if errors.Is(err, context.DeadlineExceeded) {
		_, _ = endProbe(keeper, id) // should it start after all
		return fault.New(fault.Unavailable, "timed out starting health check for container %s", r.ID)
	}
	if err != nil {
		_, err = execFailure(r, err)
	}
	return err
}

// endProbe kills a probe and returns how it ended.
func endProbe(keeper *supervise.Keeper, id string) (supervise.ExecExit, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeEnd)
	defer cancel()
	if err := keeper.Execs.Kill(ctx, id); err != nil && !errors.Is(err, fault.Conflict) {
		return supervise.ExecExit{}, err
	}
	return keeper.Execs.Wait(ctx, id)
}

// record notes a result and tells of a change of the status, which it returns.
func (h *Health) record(p *prober, result *wire.HealthcheckResult, status wire.HealthStatus) wire.HealthStatus {
	s := h.containers
	changed := false
	r, err := s.store.Change(p.container, func(pr *record.Progress) error {
		if p.over.Err() != nil || pr.State != record.Running {
			return errOver // of another run, or none
		}
		health := p.check.Judge(pr.Health, pr.StartedAt, result)
		changed = pr.Health == nil || health.Status != pr.Health.Status
		pr.Health = health
		return nil
	})
	if err != nil {
		return status
	}
	if changed {
		s.publish(r, events.ActionHealthStatus+": "+events.Action(r.Health.Status))
	}
	if err := saveHealth(s.bundles.path(r.ID), r.Health); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Log.Warn("the health of a container cannot be written", "container", r.ID, "err", err)
	}
	return r.Health.Status
}

func saveHealth(bundle string, health *wire.Health) error {
	data, err := json.Marshal(health)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(bundle, healthFile), data, 0o600)
}

// loadHealth is what an earlier daemon found out about a run, else what is known
// at its beginning; nil without a check.
func loadHealth(bundle string, config *wire.Config, before *wire.Health) *wire.Health {
	starting := healthcheck.Starting(config, before)
	if starting == nil {
		return nil
	}
	var health wire.Health
	data, err := os.ReadFile(filepath.Join(bundle, healthFile))
	if err != nil || json.Unmarshal(data, &health) != nil || wire.ValidateHealthStatus(health.Status) != nil {
		return starting
	}
	return &health
}

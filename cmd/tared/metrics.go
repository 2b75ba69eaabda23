package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	imageapi "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/internal/exposition"
	"github.com/tarehq/tare/server"
)

// metrics are what Prometheus is told, by dockerd's names. A daemon without
// --metrics-addr has none: then nobody takes the times.
type metrics struct {
	events     *event.Log
	health     *container.Health
	containers *exposition.Timer
	images     *exposition.Timer
	host       *exposition.Timer
}

// newMetrics puts stop watches around what the API calls.
func newMetrics(c *server.Config, health *container.Health) *metrics {
	m := &metrics{
		events:     c.Events,
		health:     health,
		containers: exposition.NewTimer("engine_daemon_container_actions_seconds", "The number of seconds it takes to process each container action", "action", "changes", "commit", "create", "delete", "start"),
		images:     exposition.NewTimer("engine_daemon_image_actions_seconds", "The number of seconds it takes to process each image action", "action", "delete", "pull", "push"),
		host:       exposition.NewTimer("engine_daemon_host_info_functions_seconds", "The number of seconds it takes to call functions gathering info about the host", "function", "system_info"),
	}
	c.Containers = timedContainers{c.Containers, m.containers}
	c.Files = timedFiles{c.Files, m.containers}
	c.Images = timedImages{c.Images, m.images}
	c.Transfers = timedTransfers{c.Transfers, m.images}
	return m
}

// took is for a defer: it counts the time from begun on.
func took(t *exposition.Timer, action string, begun time.Time) {
	t.Observe(action, time.Since(begun).Seconds())
}

type timedContainers struct {
	server.Containers
	timer *exposition.Timer
}

func (c timedContainers) Create(ctx context.Context, r create.Request) (string, []string, error) {
	defer took(c.timer, "create", time.Now())
	return c.Containers.Create(ctx, r)
}

func (c timedContainers) Start(ctx context.Context, nameOrID, detachKeys string) error {
	defer took(c.timer, "start", time.Now())
	return c.Containers.Start(ctx, nameOrID, detachKeys)
}

func (c timedContainers) Remove(ctx context.Context, nameOrID string, o container.RemoveOptions) error {
	defer took(c.timer, "delete", time.Now())
	return c.Containers.Remove(ctx, nameOrID, o)
}

type timedFiles struct {
	server.Files
	timer *exposition.Timer
}

func (f timedFiles) Commit(ctx context.Context, nameOrID string, o container.CommitOptions) (string, error) {
	defer took(f.timer, "commit", time.Now())
	return f.Files.Commit(ctx, nameOrID, o)
}

type timedImages struct {
	server.Images
	timer *exposition.Timer
}

func (i timedImages) Remove(ctx context.Context, ref string, o image.RemoveOptions) ([]imageapi.DeleteResponse, error) {
	defer took(i.timer, "delete", time.Now())
	return i.Images.Remove(ctx, ref, o)
}

type timedTransfers struct {
	server.Transfers
	timer *exposition.Timer
}

func (t timedTransfers) Pull(ctx context.Context, ref string, o image.PullOptions, progress func(image.Progress)) error {
	defer took(t.timer, "pull", time.Now())
	return t.Transfers.Pull(ctx, ref, o, progress)
}

func (t timedTransfers) Push(ctx context.Context, ref string, o image.PushOptions, progress func(image.Progress)) error {
	defer took(t.timer, "push", time.Now())
	return t.Transfers.Push(ctx, ref, o, progress)
}

// page writes all of them.
func (m *metrics) page(info system.Info) *exposition.Page {
	p := &exposition.Page{}
	m.containers.Write(p)
	p.Gauge("engine_daemon_container_states_containers", "The count of containers in various states",
		exposition.Sample{Labels: []string{"state", "paused"}, Value: float64(info.ContainersPaused)},
		exposition.Sample{Labels: []string{"state", "running"}, Value: float64(info.ContainersRunning)},
		exposition.Sample{Labels: []string{"state", "stopped"}, Value: float64(info.ContainersStopped)})
	p.Gauge("engine_daemon_engine_cpus_cpus", "The number of cpus that the host system of the engine has", exposition.Sample{Value: float64(info.NCPU)})
	p.Gauge("engine_daemon_engine_info", "The information related to the engine and the OS it is running on", exposition.Sample{Value: 1, Labels: []string{
		"architecture", info.Architecture, "commit", commit(), "daemon_id", info.ID, "graphdriver", info.Driver, "kernel", info.KernelVersion,
		"os", info.OperatingSystem, "os_type", info.OSType, "os_version", info.OSVersion, "version", info.ServerVersion,
	}})
	p.Gauge("engine_daemon_engine_memory_bytes", "The number of bytes of memory that the host system of the engine has", exposition.Sample{Value: float64(info.MemTotal)})
	p.Gauge("engine_daemon_events_subscribers_total", "The number of current subscribers to events", exposition.Sample{Value: float64(info.NEventsListener)})
	p.Counter("engine_daemon_events_total", "The number of events logged", float64(m.events.Published()))
	checks, failed := m.health.Counts()
	p.Counter("engine_daemon_health_checks_failed_total", "The total number of failed health checks", float64(failed))
	p.Counter("engine_daemon_health_checks_total", "The total number of health checks", float64(checks))
	m.host.Write(p)
	m.images.Write(p)
	p.Gauge("go_goroutines", "Number of goroutines that currently exist.", exposition.Sample{Value: float64(info.NGoroutines)})
	p.Gauge("process_open_fds", "Number of open file descriptors.", exposition.Sample{Value: float64(info.NFd)})
	return p
}

// serve answers GET /metrics at the address until the returned step is called.
func (m *metrics) serve(ctx context.Context, address string, info func() system.Info) (stop func(context.Context) error, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot serve metrics at %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		begun := time.Now()
		facts := info()
		took(m.host, "system_info", begun)
		w.Header().Set("Content-Type", exposition.ContentType)
		w.Write(m.page(facts).Bytes()) // whoever asked may be gone
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	return func(ctx context.Context) error {
		err := s.Shutdown(ctx)
		if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	}, nil
}

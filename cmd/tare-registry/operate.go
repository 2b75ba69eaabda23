package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/access"
	"github.com/tarehq/tare/registry/config"
	"github.com/tarehq/tare/registry/limit"
	"github.com/tarehq/tare/registry/metrics"
	webhook "github.com/tarehq/tare/registry/notify"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/upstream"
)

// operation is what is there for whoever runs the registry. Its parts may be
// missing, but for the limits and health.
type operation struct {
	log      *slog.Logger
	metrics  *metrics.Metrics
	listener net.Listener // of the metrics
	server   *http.Server
	served   chan error
	access   *access.Log
	limits   *limit.Limits
	notify   *webhook.Sender
	health   health
	proxies  []netip.Prefix
}

// operate opens the parts that the configuration asks for.
func operate(ctx context.Context, c *config.Config, logTo io.Writer, log *slog.Logger) (_ *operation, err error) {
	o := &operation{log: log}
	for _, n := range c.HTTP.Proxies {
		o.proxies = append(o.proxies, n.Prefix)
	}
	defer func() {
		if err != nil {
			o.close(ctx)
		}
	}()
	refused := func(string) {}
	if c.Metrics.Listen != "" {
		o.metrics = metrics.New(version)
		refused = o.metrics.Refused
		if o.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", c.Metrics.Listen); err != nil {
			return nil, fault.New(fault.Invalid, "cannot listen for metrics on %s: choose another address as metrics.listen: %w", c.Metrics.Listen, err)
		}
	}
	o.limits = limit.New(limit.Config{Rate: c.Limits.Rate, Burst: c.Limits.Burst, Uploads: c.Limits.Uploads}, refused)
	switch file := c.Log.Access; file {
	case "off":
	case "stderr":
		o.access, err = access.OpenLog("", logTo, c.Log.Format, log)
	default:
		o.access, err = access.OpenLog(file, nil, c.Log.Format, log)
	}
	if err != nil {
		return nil, err
	}
	if len(c.Notify) > 0 {
		if o.notify, err = sender(c, log); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// sender makes the webhooks. A secret that cannot be read now is told now.
func sender(c *config.Config, log *slog.Logger) (*webhook.Sender, error) {
	n := webhook.Config{URL: c.HTTP.URL, Log: log}
	if len(c.HTTP.Listen) > 0 {
		n.Addr = c.HTTP.Listen[0]
	}
	for _, hook := range c.Notify {
		headers := func() (http.Header, error) {
			h := http.Header{}
			for name, secret := range hook.Headers {
				v, err := secret.Read()
				if err != nil {
					return nil, err
				}
				h.Set(name, v)
			}
			return h, nil
		}
		if _, err := headers(); err != nil {
			return nil, fault.New(fault.Invalid, "notify.headers: %w", err)
		}
		e := webhook.Endpoint{URL: hook.URL, Headers: headers, Timeout: time.Duration(hook.Timeout)}
		for _, word := range hook.Events {
			e.Actions = append(e.Actions, registry.Action(word))
		}
		if len(hook.Repositories) > 0 {
			e.Match = hook.Repositories.Match
		}
		n.Endpoints = append(n.Endpoints, e)
	}
	return webhook.New(n), nil
}

// watch has the storage's work counted, and health know it.
func (o *operation) watch(s storage.Storage) storage.Storage {
	o.health.ready = s.Ready
	o.health.report = func(err error) { o.log.Error("the storage is not ready", "error", err) }
	if o.metrics != nil {
		s = o.metrics.Storage(s)
		o.gauges()
	}
	return s
}

func (o *operation) gauges() {
	m := o.metrics
	m.Gauge("uploads", "Requests under way that bring bytes of blobs.", nil, func() float64 { return float64(o.limits.Uploads()) })
	if o.notify == nil {
		return
	}
	for i, q := range o.notify.Queues() {
		labels := map[string]string{"receiver": strconv.Itoa(i) + " " + q.Host()}
		m.Gauge("events_waiting", "Events that wait for their receiver.", labels, func() float64 { return float64(q.Waiting()) })
		m.Counter("events_delivered_total", "Events that their receiver took.", labels, func() float64 { n, _, _ := q.Counts(); return float64(n) })
		m.Counter("events_failed_total", "Attempts to deliver that failed.", labels, func() float64 { _, n, _ := q.Counts(); return float64(n) })
		m.Counter("events_dropped_total", "Events that were given up.", labels, func() float64 { _, _, n := q.Counts(); return float64(n) })
	}
}

// copies has it counted how often what clients look for is here already.
func (o *operation) copies(s storage.Storage) {
	u, ok := s.(*upstream.Storage)
	if !ok || o.metrics == nil {
		return
	}
	value := func(c upstream.Count) func() float64 { return func() float64 { return float64(c.Value()) } }
	for _, c := range u.Lookups() {
		o.metrics.Counter("upstream_lookups_total", "What clients looked for in copies: a hit is here, else upstream was asked, or did not answer.",
			map[string]string{"upstream": c.Upstream, "noun": c.Noun, "result": c.Result}, value(c))
	}
	for _, c := range u.Received() {
		o.metrics.Counter("upstream_received_bytes_total", "Bytes of blobs that came from upstreams.", map[string]string{"upstream": c.Upstream}, value(c))
	}
}

// observe is registry.Config's Observe.
func (o *operation) observe() func(registry.Event) {
	if o.notify == nil {
		return nil
	}
	return o.notify.Observe
}

// wrap puts what all requests pass before the handler: who they are from, the
// log, health and limits.
func (o *operation) wrap(next http.Handler) http.Handler {
	limited := o.limits.Handler(next)
	c := access.Config{Proxies: o.proxies}
	if o.metrics != nil {
		c.Observers = append(c.Observers, o.metrics.Observe)
	}
	if o.access != nil {
		c.Observers = append(c.Observers, o.access.Observe)
	}
	noted := access.Handler(limited, c)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.health.handles(r.URL.Path) {
			o.health.ServeHTTP(w, r) // too often to be of note
			return
		}
		noted.ServeHTTP(w, r)
	})
}

// serve answers at the address of the metrics, until close.
func (o *operation) serve() {
	if o.listener == nil {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", o.metrics.Handler())
	mux.Handle(healthPath, &o.health)
	mux.Handle(readyPath, &o.health)
	o.server = &http.Server{Handler: mux, ReadTimeout: headerTime, WriteTimeout: time.Minute, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(o.log.Handler(), slog.LevelDebug)}
	o.served = make(chan error, 1)
	go func() { o.served <- o.server.Serve(o.listener) }()
}

// drain is what events have to be delivered at the end.
const drain = 10 * time.Second

// close ends it all, in order: what waits is delivered and written.
func (o *operation) close(ctx context.Context) error {
	var err error
	if o.notify != nil {
		limit, release := context.WithTimeout(context.WithoutCancel(ctx), drain)
		o.notify.Close(limit)
		release()
	}
	switch {
	case o.server != nil:
		err = o.server.Close()
		if e := <-o.served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	case o.listener != nil:
		err = o.listener.Close()
	}
	if o.access != nil {
		err = errors.Join(err, o.access.Close())
	}
	return err
}

// connections closes those beyond the limit as they come, and counts the others.
func (o *operation) connections(most int) func(net.Conn, http.ConnState) {
	var open atomic.Int64
	if o.metrics != nil {
		o.metrics.Gauge("connections", "Open connections.", nil, func() float64 { return float64(open.Load()) })
	}
	return func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			if n := open.Add(1); most > 0 && n > int64(most) {
				if o.metrics != nil {
					o.metrics.Refused("connections")
				}
				c.Close() // net/http finds it closed, and says so
			}
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
}

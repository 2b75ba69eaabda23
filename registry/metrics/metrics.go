// Package metrics counts what a registry does, in the form that Prometheus
// reads. Nothing is counted by repository, user or address: what strangers can
// invent would be kept for ever.
//
//	tare_registry_requests_total{noun,method,status}   noun as registry.Noun has it, status 2xx to 5xx
//	tare_registry_request_seconds{noun,method}         histogram, whole answers
//	tare_registry_received_bytes_total{noun}           of requests' bodies
//	tare_registry_sent_bytes_total{noun}               of answers' bodies
//	tare_registry_refused_total{reason}                by limits: rate, uploads, connections
//	tare_registry_storage_operations_total{operation}
//	tare_registry_storage_errors_total{operation}      failures of the storage, not things that are not there
//	tare_registry_storage_seconds{operation}           histogram
//	tare_registry_collections_total, …collected_bytes_total, …collected_blobs_total
//
// Others add their own by Gauge and Counter.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tarehq/tare/registry/access"
)

const namespace = "tare_registry"

// Metrics are those of one registry.
type Metrics struct {
	all      *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
	refused  *prometheus.CounterVec
	storage  storageMetrics
}

// New makes metrics of a program of this version.
func New(version string) *Metrics {
	m := &Metrics{
		all:      prometheus.NewRegistry(),
		requests: counter("requests_total", "Requests that were answered.", "noun", "method", "status"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: "request_seconds",
			Help: "How long requests took, their bodies included.", Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60, 600}}, []string{"noun", "method"}),
		received: counter("received_bytes_total", "Bytes of requests' bodies.", "noun"),
		sent:     counter("sent_bytes_total", "Bytes of answers' bodies.", "noun"),
		refused:  counter("refused_total", "Requests and connections beyond a limit.", "reason"),
		storage:  newStorageMetrics(),
	}
	m.all.MustRegister(m.requests, m.seconds, m.received, m.sent, m.refused,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.storage.register(m.all)
	build := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "build", Help: "1, with the version as a label.",
		ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.all.MustRegister(build)
	return m
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

// Gauge adds a value that goes up and down, asked for when somebody looks.
func (m *Metrics) Gauge(name, help string, labels map[string]string, value func() float64) {
	m.all.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help, ConstLabels: labels}, value))
}

// Counter adds a value that only grows.
func (m *Metrics) Counter(name, help string, labels map[string]string, value func() float64) {
	m.all.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help, ConstLabels: labels}, value))
}

// Observe is one of access.Config.Observers.
func (m *Metrics) Observe(r *access.Record) {
	method := known(r.Method)
	m.requests.WithLabelValues(r.Noun, method, class(r.Status)).Inc()
	m.seconds.WithLabelValues(r.Noun, method).Observe(r.Took.Seconds())
	if r.In > 0 {
		m.received.WithLabelValues(r.Noun).Add(float64(r.In))
	}
	if r.Out > 0 {
		m.sent.WithLabelValues(r.Noun).Add(float64(r.Out))
	}
}

// Refused counts what a limit sent away.
func (m *Metrics) Refused(reason string) { m.refused.WithLabelValues(reason).Inc() }

// Handler shows all of it.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.all, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// known keeps clients from making labels: a method is any word.
func known(method string) string {
	switch method {
	case "GET", "HEAD", "PUT", "POST", "PATCH", "DELETE":
		return method
	}
	return "other"
}

var classes = [...]string{1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}

func class(status int) string {
	if i := status / 100; i > 0 && i < len(classes) {
		return classes[i]
	}
	return "other"
}

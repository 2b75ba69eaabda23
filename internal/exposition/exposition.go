// Package exposition writes measurements in Prometheus' text format, version
// 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/. It is for
// programs that start often or idle small; what they do not measure costs them
// nothing.
package exposition

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// ContentType is that of what Page writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Page is one answer, metric by metric. The zero value is empty.
type Page struct{ b bytes.Buffer }

// Bytes is what has been written.
func (p *Page) Bytes() []byte { return p.b.Bytes() }

// Sample is one value of a metric, with pairs of a label's name and its value.
type Sample struct {
	Labels []string
	Value  float64
}

// Gauge writes a metric that can go down.
func (p *Page) Gauge(name, help string, samples ...Sample) { p.metric("gauge", name, help, samples) }

// Counter writes a metric that only goes up, whose name ends in _total.
func (p *Page) Counter(name, help string, value float64) {
	p.metric("counter", name, help, []Sample{{Value: value}})
}

func (p *Page) metric(kind, name, help string, samples []Sample) {
	p.head(kind, name, help)
	for _, s := range samples {
		p.sample(name, s.Labels, s.Value)
	}
}

func (p *Page) head(kind, name, help string) {
	fmt.Fprintf(&p.b, "# HELP %s %s\n# TYPE %s %s\n", name, escape(help, false), name, kind)
}

func (p *Page) sample(name string, labels []string, value float64) {
	p.b.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		fmt.Fprintf(&p.b, `%c%s="%s"`, "{,"[min(i, 1)], labels[i], escape(labels[i+1], true))
	}
	if len(labels) > 0 {
		p.b.WriteByte('}')
	}
	fmt.Fprintf(&p.b, " %s\n", number(value))
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func escape(s string, quoted bool) string {
	s = strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(s)
	if quoted {
		s = strings.ReplaceAll(s, `"`, `\"`)
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// buckets are the upper bounds in seconds of Prometheus' libraries.
var buckets = [11]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Timer counts how long things take, by one label. It is safe for concurrent
// use; the zero value is not.
type Timer struct {
	name, help, label string

	mu    sync.Mutex
	times map[string]*times
}

type times struct {
	in  [12]uint64 // by the bucket that each falls into, the last for what is longer
	sum float64
}

// NewTimer makes a timer that writes the given values of the label before
// anything has been observed, too.
func NewTimer(name, help, label string, values ...string) *Timer {
	t := &Timer{name: name, help: help, label: label, times: map[string]*times{}}
	for _, v := range values {
		t.times[v] = &times{}
	}
	return t
}

// Observe counts one that took so many seconds.
func (t *Timer) Observe(value string, seconds float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.times[value]
	if h == nil {
		h = &times{}
		t.times[value] = h
	}
	i, _ := slices.BinarySearch(buckets[:], seconds)
	h.in[i]++
	h.sum += seconds
}

// Write adds the timer to a page, as a histogram.
func (t *Timer) Write(p *Page) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.head("histogram", t.name, t.help)
	for _, value := range slices.Sorted(maps.Keys(t.times)) {
		h := t.times[value]
		var upTo uint64
		for i, bound := range buckets {
			upTo += h.in[i]
			p.sample(t.name+"_bucket", []string{t.label, value, "le", number(bound)}, float64(upTo))
		}
		upTo += h.in[len(buckets)]
		p.sample(t.name+"_bucket", []string{t.label, value, "le", "+Inf"}, float64(upTo))
		p.sample(t.name+"_sum", []string{t.label, value}, h.sum)
		p.sample(t.name+"_count", []string{t.label, value}, float64(upTo))
	}
}

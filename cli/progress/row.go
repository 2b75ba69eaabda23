package progress

import (
	"strings"
	"time"

	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/client"
)

// row is the line of one layer or tag.
type row struct {
	id, status     string
	layer          bool  // it has counts, or may have
	current, total int64 // of the status; total 0 is not known
	units          string
	hideCounts     bool
	meter          meter

	moved, size int64 // bytes that came or went over the network, of how many
}

// update takes a message over.
func (r *row) update(p client.Progress, now time.Time) {
	status := strings.ReplaceAll(clean(p.Status), "\n", " ")
	if status != r.status {
		r.meter, r.current, r.total = meter{}, 0, 0
	}
	r.status = status
	if p.Detail != nil {
		r.layer = true
		r.current, r.total = max(p.Detail.Current, 0), max(p.Detail.Total, 0)
		r.units, r.hideCounts = strings.ReplaceAll(clean(p.Detail.Units), "\n", " "), p.Detail.HideCounts
	}
	if r.current > r.total {
		r.total = 0
	}
	if r.counting() {
		r.meter.add(now, r.current)
	}
	switch {
	case r.transferring():
		r.moved, r.size = r.current, max(r.size, r.total)
	case r.size > 0 && arrived(r.status):
		r.moved = r.size
	}
}

// transferring is the state whose bytes the network carries.
func (r *row) transferring() bool {
	return r.counting() && r.units == "" && (r.status == "Downloading" || r.status == "Pushing")
}

func (r *row) counting() bool { return r.current > 0 || r.total > 0 }

// arrived tells whether a status follows a whole transfer.
func arrived(status string) bool {
	switch status {
	case "Download complete", "Verifying Checksum", "Extracting", "Pushed":
		return true
	}
	return finished(status)
}

// finished tells whether a status is a layer's last one.
func finished(status string) bool {
	switch status {
	case "Pull complete", "Already exists", "Pushed", "Layer already exists":
		return true
	}
	return strings.HasPrefix(status, "Mounted from ") || strings.HasPrefix(status, "Skipped")
}

// head is the beginning of the line.
func (r *row) head() string { return r.id + ": " + r.status }

// counts says how much of how much.
func (r *row) counts() string {
	switch {
	case r.hideCounts || !r.counting():
		return ""
	case r.units != "" && r.total > 0:
		return decimal(r.current) + "/" + decimal(r.total) + " " + r.units
	case r.units != "":
		return decimal(r.current) + " " + r.units
	case r.total > 0:
		return size(r.current) + "/" + size(r.total)
	}
	return size(r.current)
}

// rate is the bytes per second, "" where nothing is known of it.
func (r *row) rate(now time.Time) string {
	if r.units != "" || !r.counting() {
		return ""
	}
	return perSecond(r.meter.rate(now))
}

func perSecond(rate float64) string {
	if rate <= 0 {
		return ""
	}
	return format.Size(rate) + "/s"
}

func size(n int64) string { return format.SizeFine(float64(n)) }

// meter measures a rate over the last seconds.
type meter struct{ samples []sample }

type sample struct {
	at time.Time
	n  int64
}

const (
	window  = 4 * time.Second        // that the rate is the mean of
	spacing = 200 * time.Millisecond // between the samples that are kept
	grace   = 2 * time.Second        // without news before the rate falls
)

// add notes how many bytes there are now.
func (m *meter) add(now time.Time, n int64) {
	k := len(m.samples)
	if k > 0 && n < m.samples[k-1].n {
		m.samples, k = m.samples[:0], 0 // it began anew
	}
	if k > 1 && now.Sub(m.samples[k-2].at) < spacing {
		m.samples[k-1].n = n // its time stays, so that a later one is added
		m.samples[k-1].at = now
		return
	}
	m.samples = append(m.samples, sample{now, n})
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) > window {
		m.samples = m.samples[1:]
	}
}

// rate is in bytes per second, 0 before two samples are there. It falls while
// nothing comes.
func (m *meter) rate(now time.Time) float64 {
	k := len(m.samples)
	if k < 2 {
		return 0
	}
	first := m.samples[0]
	for _, s := range m.samples[1 : k-1] {
		if now.Sub(s.at) > window {
			first = s
		}
	}
	span := now.Sub(first.at)
	if last := m.samples[k-1]; now.Sub(last.at) < grace {
		span = last.at.Sub(first.at)
	}
	if span < spacing {
		return 0
	}
	return float64(m.samples[k-1].n-first.n) / span.Seconds()
}

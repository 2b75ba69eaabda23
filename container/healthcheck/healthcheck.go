// Package healthcheck is what a container's health check comes to: when it is made, and
// what its results say. It makes none.
package healthcheck

import (
	"slices"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

// Docker's defaults and bounds of a health check.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
	minTime              = time.Millisecond // of each duration
	maxResults           = 5
)

// MaxOutput is how much is kept of what a probe writes, in bytes.
const MaxOutput = 4096

// Check is a container's health check with every default filled in.
type Check struct {
	Argv                                          []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int // failures in a row that make it unhealthy
}

// Refuse refuses, in Docker's words, the check of a request that is none.
func Refuse(h *wire.HealthConfig) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < minTime {
			return fault.New(fault.Invalid, "%s in Healthcheck cannot be less than %s", d.name, minTime)
		}
	}
	if h.Retries < 0 {
		return fault.New(fault.Invalid, "Retries in Healthcheck cannot be negative")
	}
	if len(h.Test) == 0 {
		return nil
	}
	switch kind := h.Test[0]; {
	case kind != "NONE" && kind != "CMD" && kind != "CMD-SHELL":
		return fault.New(fault.Invalid, "Test in Healthcheck begins with %q: it must be NONE, CMD or CMD-SHELL", kind)
	case kind != "NONE" && len(h.Test) == 1:
		return fault.New(fault.Invalid, "Test in Healthcheck has no command behind %s", kind)
	}
	return nil
}

// Of is the check of a container's config, if it has one. The config may
// be an image's, which nobody has looked at: what makes no sense is as if it
// were not there.
func Of(config *wire.Config) (Check, bool) {
	h := config.Healthcheck
	if h == nil || len(h.Test) < 2 {
		return Check{}, false
	}
	c := Check{Interval: defaultInterval, Timeout: defaultTimeout, StartInterval: defaultStartInterval, Retries: defaultRetries}
	switch h.Test[0] {
	case "CMD":
		c.Argv = h.Test[1:]
	case "CMD-SHELL":
		shell := config.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		c.Argv = slices.Concat(shell, h.Test[1:])
	default:
		return Check{}, false
	}
	for _, d := range []struct {
		to   *time.Duration
		from time.Duration
	}{{&c.Interval, h.Interval}, {&c.Timeout, h.Timeout}, {&c.StartPeriod, h.StartPeriod}, {&c.StartInterval, h.StartInterval}} {
		if d.from >= minTime {
			*d.to = d.from
		}
	}
	if h.Retries > 0 {
		c.Retries = h.Retries
	}
	return c, true
}

// Next is the time to the next probe of a run that is so old.
func (c Check) Next(status wire.HealthStatus, age time.Duration) time.Duration {
	if age < c.StartPeriod && status == wire.Starting {
		return c.StartInterval
	}
	return c.Interval
}

// Due is the time from now to the next probe of a run, of which some may have been
// made; 0 when it is overdue.
func (c Check) Due(started time.Time, health *wire.Health, now time.Time) time.Duration {
	last := started
	if n := len(health.Log); n > 0 && !health.Log[n-1].Start.Before(started) { // else of the run before
		last = health.Log[n-1].End
	}
	return max(0, last.Add(c.Next(health.Status, last.Sub(started))).Sub(now))
}

// Starting is the health of a container whose run begins; the results of
// its last run are kept. nil without a check.
func Starting(config *wire.Config, before *wire.Health) *wire.Health {
	if _, ok := Of(config); !ok {
		return nil
	}
	health := &wire.Health{Status: wire.Starting}
	if before != nil {
		health.Log = before.Log
	}
	return health
}

// Over is the health of a container whose run is over, which Docker calls
// unhealthy.
func Over(before *wire.Health) *wire.Health {
	if before == nil {
		return nil
	}
	health := *before
	health.Status = wire.Unhealthy
	return &health
}

// Judge is the health after a result. Failures within the start period count
// only once a probe has succeeded.
func (c Check) Judge(before *wire.Health, started time.Time, result *wire.HealthcheckResult) *wire.Health {
	health := &wire.Health{Status: wire.Starting}
	if before != nil {
		*health = *before
	}
	health.Log = append(slices.Clone(health.Log), result)
	health.Log = slices.Clone(health.Log[max(0, len(health.Log)-maxResults):])
	switch {
	case result.ExitCode == 0:
		health.Status, health.FailingStreak = wire.Healthy, 0
	case health.Status == wire.Starting && result.Start.Sub(started) < c.StartPeriod:
	default:
		if health.FailingStreak++; health.FailingStreak >= c.Retries {
			health.Status = wire.Unhealthy
		}
	}
	return health
}

// Status is a container's health in a word: none without a check, or before the first
// start.
func Status(health *wire.Health) wire.HealthStatus {
	if health == nil {
		return wire.NoHealthcheck
	}
	return health.Status
}

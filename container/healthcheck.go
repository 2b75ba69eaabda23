package container

import (
	"slices"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

// Docker's defaults and bounds of a health check.
const (
	probeInterval      = 30 * time.Second
	probeTimeout       = 30 * time.Second
	probeStartInterval = 5 * time.Second
	probeRetries       = 3
	minProbeTime       = time.Millisecond // of each duration
	maxProbeOutput     = 4096             // bytes of a result
	maxProbeResults    = 5
)

// check is a container's health check with every default filled in.
type check struct {
	argv                                          []string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int // failures in a row that make it unhealthy
}

// checkHealth refuses, in Docker's words, the check of a request that is none.
func checkHealth(h *wire.HealthConfig) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < minProbeTime {
			return fault.New(fault.Invalid, "%s in Healthcheck cannot be less than %s", d.name, minProbeTime)
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

// checkOf is the check of a container's config, if it has one. The config may
// be an image's, which nobody has looked at: what makes no sense is as if it
// were not there.
func checkOf(config *wire.Config) (check, bool) {
	h := config.Healthcheck
	if h == nil || len(h.Test) < 2 {
		return check{}, false
	}
	c := check{interval: probeInterval, timeout: probeTimeout, startInterval: probeStartInterval, retries: probeRetries}
	switch h.Test[0] {
	case "CMD":
		c.argv = h.Test[1:]
	case "CMD-SHELL":
		shell := config.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		c.argv = slices.Concat(shell, h.Test[1:])
	default:
		return check{}, false
	}
	for _, d := range []struct {
		to   *time.Duration
		from time.Duration
	}{{&c.interval, h.Interval}, {&c.timeout, h.Timeout}, {&c.startPeriod, h.StartPeriod}, {&c.startInterval, h.StartInterval}} {
		if d.from >= minProbeTime {
			*d.to = d.from
		}
	}
	if h.Retries > 0 {
		c.retries = h.Retries
	}
	return c, true
}

// next is the time to the next probe of a run that is so old.
func (c check) next(status wire.HealthStatus, age time.Duration) time.Duration {
	if age < c.startPeriod && status == wire.Starting {
		return c.startInterval
	}
	return c.interval
}

// due is the time from now to the next probe of a run of which some may have
// been made; 0 when it is overdue.
func (c check) due(r Record, now time.Time) time.Duration {
	last := r.StartedAt
	if n := len(r.Health.Log); n > 0 && !r.Health.Log[n-1].Start.Before(r.StartedAt) { // else of the run before
		last = r.Health.Log[n-1].End
	}
	return max(0, last.Add(c.next(r.Health.Status, last.Sub(r.StartedAt))).Sub(now))
}

// startingHealth is the health of a container whose run begins; the results of
// its last run are kept. nil without a check.
func startingHealth(config *wire.Config, before *wire.Health) *wire.Health {
	if _, ok := checkOf(config); !ok {
		return nil
	}
	health := &wire.Health{Status: wire.Starting}
	if before != nil {
		health.Log = before.Log
	}
	return health
}

// overHealth is the health of a container whose run is over, which Docker calls
// unhealthy.
func overHealth(before *wire.Health) *wire.Health {
	if before == nil {
		return nil
	}
	health := *before
	health.Status = wire.Unhealthy
	return &health
}

// judge is the health after a result. Failures within the start period count
// only once a probe has succeeded.
func (c check) judge(before *wire.Health, started time.Time, result *wire.HealthcheckResult) *wire.Health {
	health := &wire.Health{Status: wire.Starting}
	if before != nil {
		*health = *before
	}
	health.Log = append(slices.Clone(health.Log), result)
	health.Log = slices.Clone(health.Log[max(0, len(health.Log)-maxProbeResults):])
	switch {
	case result.ExitCode == 0:
		health.Status, health.FailingStreak = wire.Healthy, 0
	case health.Status == wire.Starting && result.Start.Sub(started) < c.startPeriod:
	default:
		if health.FailingStreak++; health.FailingStreak >= c.retries {
			health.Status = wire.Unhealthy
		}
	}
	return health
}

// healthStatus is a container's in a word: none without a check, or before the
// first start.
func healthStatus(r Record) wire.HealthStatus {
	if r.Health == nil {
		return wire.NoHealthcheck
	}
	return r.Health.Status
}

package main

import (
	"log/slog"
	"math"
	"net"
	"net/url"
	"os"
	"strconv"

	"github.com/tarehq/tare/fault"
)

// checkDaemon holds what is about the daemon's own process to dockerd's rules.
func (o *options) checkDaemon() error {
	switch {
	case o.LogFormat != "" && o.LogFormat != "text" && o.LogFormat != "json":
		return fault.New(fault.Invalid, "invalid log format: %s", o.LogFormat)
	case o.ShutdownTimeout > math.MaxInt32: // it would be no number of nanoseconds
		return fault.New(fault.Invalid, "invalid shutdown-timeout %d: the most is %d seconds, and -1 is for no limit", o.ShutdownTimeout, math.MaxInt32)
	case o.OOMScoreAdjust < -1000 || o.OOMScoreAdjust > 1000:
		return fault.New(fault.Invalid, "invalid value %d for oom-score-adjust: the range is -1000 to 1000", o.OOMScoreAdjust)
	}
	if o.MetricsAddr != "" {
		_, port, err := net.SplitHostPort(o.MetricsAddr)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fault.New(fault.Invalid, "invalid metrics-addr %q: want HOST:PORT", o.MetricsAddr)
		}
	}
	if _, err := o.Builder.Rules("/"); err != nil {
		return err
	}
	for name, on := range o.Features {
		switch name {
		case "containerd-snapshotter", "cdi":
			if !on {
				return fault.New(fault.NotImplemented, "the feature %s cannot be turned off", name)
			}
		case "buildkit":
		default:
			return fault.New(fault.NotImplemented, "the feature %s is not supported: there are containerd-snapshotter, cdi and buildkit", name)
		}
	}
	return nil
}

// withoutPassword is a proxy's URL without who uses it.
func withoutPassword(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.User == nil {
		return text
	}
	u.User = url.UserPassword("xxxxx", "xxxxx")
	return u.String()
}

// adjustProcess gives this process what the options ask for it: its proxies,
// which the HTTP client reads from the environment once, and its place in the
// order in which the kernel kills for memory, proc_pid_oom_score_adj(5).
func (o *options) adjustProcess(log *slog.Logger) error {
	for _, p := range []struct{ value, upper, lower string }{
		{o.HTTPProxy, "HTTP_PROXY", "http_proxy"}, {o.HTTPSProxy, "HTTPS_PROXY", "https_proxy"}, {o.NoProxy, "NO_PROXY", "no_proxy"},
	} {
		if p.value == "" {
			continue
		}
		for _, name := range []string{p.upper, p.lower} {
			if old := os.Getenv(name); old != "" && old != p.value {
				log.Warn("overriding existing proxy variable with value from configuration", "name", name, "old-value", withoutPassword(old), "new-value", withoutPassword(p.value))
			}
			if err := os.Setenv(name, p.value); err != nil {
				return err
			}
		}
	}
	if o.OOMScoreAdjust == 0 {
		return nil
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(o.OOMScoreAdjust)), 0o644); err != nil {
		return fault.New(fault.Invalid, "cannot set oom-score-adjust to %d: %w", o.OOMScoreAdjust, err)
	}
	return nil
}

package container

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/container/stream"
	"github.com/tarehq/tare/fault"
)

func TestSets(t *testing.T) {
	for text, want := range map[string]string{
		"x":       "Invalid value x for cpuset cpus: invalid format: x",
		"0-60000": "Requested CPUs are not available - requested 0-60000, available: ",
	} {
		if err := spec.CheckLimits(&wire.HostConfig{Resources: wire.Resources{CpusetCpus: text}}); !errors.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := spec.CheckLimits(&wire.HostConfig{Resources: wire.Resources{CpusetCpus: "0", CpusetMems: "0"}}); err != nil {
		t.Error(err)
	}
}

func TestRestartPolicy(t *testing.T) {
	policy := func(name wire.RestartPolicyMode, n int) wire.RestartPolicy {
		return wire.RestartPolicy{Name: name, MaximumRetryCount: n}
	}
	for _, c := range []struct {
		policy      wire.RestartPolicy
		code, count int
		want        bool
	}{
		{policy("no", 0), 1, 0, false}, {policy("always", 0), 0, 99, true}, {policy("unless-stopped", 0), 0, 0, true},
		{policy("on-failure", 0), 0, 0, false}, {policy("on-failure", 0), 1, 99, true},
		{policy("on-failure", 2), 1, 1, true}, {policy("on-failure", 2), 1, 2, false},
	} {
		if got := restarts(c.policy, c.code, c.count); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	l := &live{}
	var waits []time.Duration
	for range 4 {
		waits = append(waits, l.backoff(0))
	}
	if want := []time.Duration{100e6, 200e6, 400e6, 800e6}; !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
	if got := l.backoff(11 * time.Second); got != minBackoff {
		t.Errorf("after a steady run: %v", got)
	}
}

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string]string{"": "\x10\x11", "a": "a", "ctrl-a,x": "\x01x", "ctrl-[": "\x1b", "ctrl-@": "\x00"} {
		if got, err := stream.DetachKeys(in); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"ctrl-", "ctrl-1", "ab", "a,,b", "CTRL-P", "ctrl-A"} {
		if _, err := stream.DetachKeys(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

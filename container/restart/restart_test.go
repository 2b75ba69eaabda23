package restart

import (
	"slices"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"
)

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
		if got := Wanted(c.policy, c.code, c.count); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	var l Tries
	var waits []time.Duration
	for range 4 {
		waits = append(waits, l.Wait(0))
	}
	if want := []time.Duration{100e6, 200e6, 400e6, 800e6}; !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
	if got := l.Wait(11 * time.Second); got != minBackoff {
		t.Errorf("after a steady run: %v", got)
	}
}

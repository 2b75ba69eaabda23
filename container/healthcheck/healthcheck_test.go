package healthcheck

import (
	"errors"
	"strings"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

func TestRefuse(t *testing.T) {
	cmd := []string{"CMD", "true"}
	for want, h := range map[string]*wire.HealthConfig{
		"Interval in Healthcheck cannot be less than 1ms":      {Test: cmd, Interval: time.Microsecond},
		"Timeout in Healthcheck cannot be less than 1ms":       {Test: cmd, Timeout: -time.Second},
		"StartPeriod in Healthcheck cannot be less than 1ms":   {Test: cmd, StartPeriod: 1},
		"StartInterval in Healthcheck cannot be less than 1ms": {StartInterval: time.Millisecond - 1},
		"Retries in Healthcheck cannot be negative":            {Test: cmd, Retries: -1},
		`begins with "TCP"`:     {Test: []string{"TCP", "80"}},
		"no command behind CMD": {Test: cmd[:1]},
	} {
		if err := Refuse(h); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, h := range []*wire.HealthConfig{nil, {}, {Test: []string{"NONE"}}, {Interval: time.Millisecond}, {Test: cmd, Retries: 9}} {
		if err := Refuse(h); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

// What an image says is hostile: nothing of it may run wild.
func TestHostileCheck(t *testing.T) {
	for _, h := range []*wire.HealthConfig{{Test: []string{"CMD"}}, {Test: []string{"FTP", "x"}}, {Test: []string{""}}} {
		if c, ok := Of(&wire.Config{Healthcheck: h}); ok {
			t.Errorf("%v is a check: %+v", h, c)
		}
	}
	if c, _ := Of(&wire.Config{Healthcheck: &wire.HealthConfig{Test: []string{"CMD", "x"}, Interval: 1, Timeout: -1, Retries: -1}}); c.Interval != 30*time.Second || c.Timeout != 30*time.Second || c.Retries != 3 {
		t.Errorf("an image's nonsense: %+v", c)
	}
}

func TestJudge(t *testing.T) {
	began := time.Unix(1000, 0)
	c := Check{Retries: 2, StartPeriod: 10 * time.Second, StartInterval: time.Second, Interval: time.Minute}
	health := Starting(&wire.Config{Healthcheck: &wire.HealthConfig{Test: []string{"CMD", "x"}}}, nil)
	for i, step := range []struct {
		at, code int // seconds after the start, exit code
		want     wire.HealthStatus
		streak   int
		next     time.Duration
	}{
		{1, 1, wire.Starting, 0, time.Second}, // in the start period a failure does not count
		{9, -1, wire.Starting, 0, time.Second},
		{10, 1, wire.Starting, 1, time.Minute},
		{11, 0, wire.Healthy, 0, time.Minute},
		{12, 1, wire.Healthy, 1, time.Minute},
		{13, 2, wire.Unhealthy, 2, time.Minute},
		{14, 1, wire.Unhealthy, 3, time.Minute},
		{15, 0, wire.Healthy, 0, time.Minute},
	} {
		before := *health
		health = c.Judge(health, began, &wire.HealthcheckResult{Start: began.Add(time.Duration(step.at) * time.Second), ExitCode: step.code})
		if health.Status != step.want || health.FailingStreak != step.streak {
			t.Fatalf("step %d: %s, streak %d; want %s, %d", i, health.Status, health.FailingStreak, step.want, step.streak)
		}
		if n := len(health.Log); n != min(i+1, 5) || health.Log[n-1].ExitCode != step.code || len(before.Log) != min(i, 5) {
			t.Fatalf("step %d: %d results are kept, there were %d", i, n, len(before.Log))
		}
		if next := c.Next(health.Status, time.Duration(step.at)*time.Second); next != step.next {
			t.Errorf("step %d: the next comes after %v, want %v", i, next, step.next)
		}
	}
	// Once it was healthy, failures count in the start period too.
	early := c.Judge(&wire.Health{Status: wire.Healthy}, began, &wire.HealthcheckResult{Start: began, ExitCode: 1})
	if early.FailingStreak != 1 {
		t.Errorf("a failure after a success: %+v", early)
	}
	if over := Over(health); over.Status != wire.Unhealthy || len(over.Log) != 5 || health.Status != wire.Healthy {
		t.Errorf("after the end: %+v", over)
	}
}

// After an outage the next probe comes when it would have come, or at once.
func TestDue(t *testing.T) {
	c := Check{Interval: time.Minute, StartPeriod: 100 * time.Second, StartInterval: 5 * time.Second}
	began := time.Unix(10000, 0)
	at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
	for _, step := range []struct {
		status     wire.HealthStatus
		start, end int // of the last probe, in seconds after the start
		now        int
		want       time.Duration
	}{
		{wire.Starting, -9, -8, 2, 3 * time.Second}, // of the last run
		{wire.Starting, 20, 21, 22, 4 * time.Second},
		{wire.Healthy, 20, 21, 22, 59 * time.Second},
		{wire.Healthy, 20, 21, 81, 0},
		{wire.Unhealthy, 20, 21, 9999, 0},
		{wire.Starting, 101, 102, 103, 59 * time.Second},
	} {
		health := &wire.Health{Status: step.status, Log: []*wire.HealthcheckResult{{}, {Start: at(step.start), End: at(step.end)}}}
		if got := c.Due(began, health, at(step.now)); got != step.want {
			t.Errorf("%+v: %v", step, got)
		}
	}
	if got := c.Due(began, &wire.Health{Status: wire.Starting}, at(1)); got != 4*time.Second {
		t.Errorf("before the first: %v", got)
	}
}

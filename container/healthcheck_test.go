package container

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

func TestCheckHealth(t *testing.T) {
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
		if err := checkHealth(h); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, h := range []*wire.HealthConfig{nil, {}, {Test: []string{"NONE"}}, {Interval: time.Millisecond}, {Test: cmd, Retries: 9}} {
		if err := checkHealth(h); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

// The request's check and the image's are merged field by field, and the
// image's shell runs the command of its shell form.
func TestHealthOfImage(t *testing.T) {
	img := testImage(nil, nil)
	img.Config.Config.Shell = []string{"/bin/ash", "-ec"}
	img.Config.Config.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD-SHELL", "probe it"}, Interval: time.Second, Timeout: 2 * time.Second, Retries: 7}
	merged := func(h *wire.HealthConfig) (check, bool) {
		c := &wire.Config{Healthcheck: h}
		mergeImage(c, img)
		return checkOf(c)
	}
	got, ok := merged(&wire.HealthConfig{Timeout: 4 * time.Second, StartPeriod: 3 * time.Second})
	want := check{argv: []string{"/bin/ash", "-ec", "probe it"}, interval: time.Second, timeout: 4 * time.Second,
		startPeriod: 3 * time.Second, startInterval: 5 * time.Second, retries: 7}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(check{})); !ok || d != "" {
		t.Error(d)
	}
	if _, ok := merged(&wire.HealthConfig{Test: []string{"NONE"}}); ok {
		t.Error("it is not switched off")
	}
	// What an image says is hostile: nothing of it may run wild.
	for _, h := range []*wire.HealthConfig{{Test: []string{"CMD"}}, {Test: []string{"FTP", "x"}}, {Test: []string{""}}} {
		if c, ok := checkOf(&wire.Config{Healthcheck: h}); ok {
			t.Errorf("%v is a check: %+v", h, c)
		}
	}
	if c, _ := checkOf(&wire.Config{Healthcheck: &wire.HealthConfig{Test: []string{"CMD", "x"}, Interval: 1, Timeout: -1, Retries: -1}}); c.interval != 30*time.Second || c.timeout != 30*time.Second || c.retries != 3 {
		t.Errorf("an image's nonsense: %+v", c)
	}
}

func TestJudge(t *testing.T) {
	began := time.Unix(1000, 0)
	c := check{retries: 2, startPeriod: 10 * time.Second, startInterval: time.Second, interval: time.Minute}
	health := startingHealth(&wire.Config{Healthcheck: &wire.HealthConfig{Test: []string{"CMD", "x"}}}, nil)
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
		health = c.judge(health, began, &wire.HealthcheckResult{Start: began.Add(time.Duration(step.at) * time.Second), ExitCode: step.code})
		if health.Status != step.want || health.FailingStreak != step.streak {
			t.Fatalf("step %d: %s, streak %d; want %s, %d", i, health.Status, health.FailingStreak, step.want, step.streak)
		}
		if n := len(health.Log); n != min(i+1, 5) || health.Log[n-1].ExitCode != step.code || len(before.Log) != min(i, 5) {
			t.Fatalf("step %d: %d results are kept, there were %d", i, n, len(before.Log))
		}
		if next := c.next(health.Status, time.Duration(step.at)*time.Second); next != step.next {
			t.Errorf("step %d: the next comes after %v, want %v", i, next, step.next)
		}
	}
	// Once it was healthy, failures count in the start period too.
	early := c.judge(&wire.Health{Status: wire.Healthy}, began, &wire.HealthcheckResult{Start: began, ExitCode: 1})
	if early.FailingStreak != 1 {
		t.Errorf("a failure after a success: %+v", early)
	}
	if over := overHealth(health); over.Status != wire.Unhealthy || len(over.Log) != 5 || health.Status != wire.Healthy {
		t.Errorf("after the end: %+v", over)
	}
}

// After an outage the next probe comes when it would have come, or at once.
func TestHealthIsDue(t *testing.T) {
	c := check{interval: time.Minute, startPeriod: 100 * time.Second, startInterval: 5 * time.Second}
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
		r := Record{Progress: Progress{StartedAt: began, Health: &wire.Health{Status: step.status,
			Log: []*wire.HealthcheckResult{{}, {Start: at(step.start), End: at(step.end)}}}}}
		if got := c.due(r, at(step.now)); got != step.want {
			t.Errorf("%+v: %v", step, got)
		}
	}
	if got := c.due(Record{Progress: Progress{StartedAt: began, Health: &wire.Health{Status: wire.Starting}}}, at(1)); got != 4*time.Second {
		t.Errorf("before the first: %v", got)
	}
}

// What was found out stands in the bundle for the next daemon; a file that
// cannot be read is as if there were none.
func TestHealthIsKept(t *testing.T) {
	dir := t.TempDir()
	config := &wire.Config{Healthcheck: &wire.HealthConfig{Test: []string{"CMD", "x"}}}
	want := &wire.Health{Status: wire.Unhealthy, FailingStreak: 4, Log: []*wire.HealthcheckResult{{ExitCode: 3, Output: "no"}}}
	if err := saveHealth(dir, want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, loadHealth(dir, config, nil)); d != "" {
		t.Error(d)
	}
	if h := loadHealth(dir, &wire.Config{}, nil); h != nil {
		t.Errorf("without a check: %+v", h)
	}
	if err := os.WriteFile(filepath.Join(dir, healthFile), []byte(`{"Status":"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if h := loadHealth(dir, config, want); h.Status != wire.Starting || h.FailingStreak != 0 || len(h.Log) != 1 {
		t.Errorf("a torn file: %+v", h)
	}
}

func TestHealthInList(t *testing.T) {
	s := &Service{store: testStore(t, t.TempDir()), cfg: Config{Images: taggedImages{}}}
	for i, status := range []wire.HealthStatus{wire.Starting, wire.Healthy, wire.Unhealthy, wire.NoHealthcheck} {
		id := strings.Repeat(string(rune('a'+i)), 64)
		addRecord(t, s.store, id, string(status), false)
		r := s.store.byID[id]
		r.State, r.StartedAt = Running, time.Now().Add(-time.Minute)
		if status != wire.NoHealthcheck {
			r.Health = &wire.Health{Status: status, FailingStreak: i}
		}
	}
	for status, want := range map[string]string{"starting": "Up About a minute (health: starting)", "healthy": "Up About a minute (healthy)",
		"unhealthy": "Up About a minute (unhealthy)", "none": "Up About a minute"} {
		list, err := s.List(t.Context(), ListOptions{Filters: map[string]map[string]bool{"health": {status: true}}})
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %+v, %v", status, list, err)
		}
		c := list[0]
		streak := map[string]int{"healthy": 1, "unhealthy": 2}[status]
		if !slices.Equal(c.Names, []string{"/" + status}) || c.Status != want || string(c.Health.Status) != status || c.Health.FailingStreak != streak {
			t.Errorf("%s: %v is %q, %+v", status, c.Names, c.Status, c.Health)
		}
	}
}

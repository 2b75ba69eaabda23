package container

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/links"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
)

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
	st := recordtest.Store(t, t.TempDir())
	s := &Service{store: st, links: links.New(st, nil), cfg: Config{Images: taggedImages{}}}
	for i, status := range []wire.HealthStatus{wire.Starting, wire.Healthy, wire.Unhealthy, wire.NoHealthcheck} {
		id := strings.Repeat(string(rune('a'+i)), 64)
		recordtest.Add(t, s.store, id, string(status), false)
		r := recordtest.Stored(t, s.store, id)
		r.State, r.StartedAt = record.Running, time.Now().Add(-time.Minute)
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

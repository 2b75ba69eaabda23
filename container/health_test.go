package container

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	wire "github.com/moby/moby/api/types/container"
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

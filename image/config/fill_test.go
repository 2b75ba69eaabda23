package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

func TestFill(t *testing.T) {
	var c, from, want dockerspec.DockerOCIImageConfig
	c.User, c.Env, c.Labels = "1", []string{"A=1"}, map[string]string{"a": "1"}
	c.Healthcheck = &dockerspec.HealthcheckConfig{Retries: 2}
	from.User, from.WorkingDir, from.Cmd, from.Entrypoint = "2", "/w", []string{"x"}, []string{"/e"}
	from.Env, from.Labels = []string{"A=2", "B=2"}, map[string]string{"a": "2", "b": "2"}
	from.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "y"}, Retries: 5, Timeout: time.Second}

	want.User, want.WorkingDir, want.Cmd, want.Entrypoint = "1", "/w", []string{"x"}, []string{"/e"}
	want.Env, want.Labels = []string{"A=1", "B=2"}, map[string]string{"a": "1", "b": "2"}
	want.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "y"}, Retries: 2, Timeout: time.Second}
	if Fill(&c, &from); !cmp.Equal(want, c) {
		t.Error(cmp.Diff(want, c))
	}
	if from.Healthcheck.Retries != 5 {
		t.Error("the other's health check was changed")
	}

	c = dockerspec.DockerOCIImageConfig{}
	c.Entrypoint = []string{"/mine"} // which another one's command does not belong to
	if Fill(&c, &from); c.Cmd != nil || c.Entrypoint[0] != "/mine" {
		t.Errorf("%q %q", c.Entrypoint, c.Cmd)
	}
}

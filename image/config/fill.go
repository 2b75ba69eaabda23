// Package config is what an image says of how its containers run: changed by the
// instructions of a Dockerfile, and filled in from another.
package config

import (
	"cmp"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Fill fills in what c leaves open from another config.
func Fill(c, from *dockerspec.DockerOCIImageConfig) {
	for _, field := range []struct{ to, from *string }{{&c.User, &from.User}, {&c.WorkingDir, &from.WorkingDir}, {&c.StopSignal, &from.StopSignal}} {
		if *field.to == "" {
			*field.to = *field.from
		}
	}
	fillMap(&c.ExposedPorts, from.ExposedPorts)
	fillMap(&c.Volumes, from.Volumes)
	fillMap(&c.Labels, from.Labels)
	for _, kv := range from.Env {
		key, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(c.Env, func(have string) bool { return have == key || strings.HasPrefix(have, key+"=") }) {
			c.Env = append(c.Env, kv)
		}
	}
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = from.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = from.Entrypoint
		}
	}
	if c.Shell == nil {
		c.Shell = from.Shell
	}
	if c.OnBuild == nil {
		c.OnBuild = from.OnBuild
	}
	c.Healthcheck = FillHealth(c.Healthcheck, from.Healthcheck)
}

// FillHealth fills in what a health check leaves open from another, field by
// field, by Docker's rules. Either may be nil, and neither is changed.
func FillHealth(c, from *dockerspec.HealthcheckConfig) *dockerspec.HealthcheckConfig {
	if c == nil || from == nil {
		return cmp.Or(c, from)
	}
	check, other := *c, *from
	if len(check.Test) == 0 {
		check.Test = other.Test
	}
	for _, field := range []struct{ to, from *time.Duration }{
		{&check.Interval, &other.Interval}, {&check.Timeout, &other.Timeout}, {&check.StartPeriod, &other.StartPeriod}, {&check.StartInterval, &other.StartInterval},
	} {
		if *field.to == 0 {
			*field.to = *field.from
		}
	}
	if check.Retries == 0 {
		check.Retries = other.Retries
	}
	return &check
}

func fillMap[V any](to *map[string]V, from map[string]V) {
	for k, v := range from {
		if _, ok := (*to)[k]; !ok {
			if *to == nil {
				*to = map[string]V{}
			}
			(*to)[k] = v
		}
	}
}

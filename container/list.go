package container

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
)

// ListOptions as in GET /containers/json.
type ListOptions struct {
	All     bool // also those that do not run
	Limit   int  // the newest so many, running or not; 0 for all
	Size    bool
	Filters map[string]map[string]bool
}

// List shows the containers that the options include, newest first.
func (s *Service) List(ctx context.Context, o ListOptions) ([]wire.Summary, error) {
	keep, err := s.filter(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	all := o.All || o.Limit > 0 || len(o.Filters["status"])+len(o.Filters["exited"]) > 0 ||
		len(o.Filters["since"])+len(o.Filters["before"]) > 0
	list := []wire.Summary{}
	for _, r := range s.store.all() {
		if !all && !r.State.Live() || !keep(r) {
			continue
		}
		item, err := s.summary(ctx, r, o.Size)
		if err != nil {
			return nil, err
		}
		if list = append(list, item); o.Limit > 0 && len(list) == o.Limit {
			break
		}
	}
	return list, nil
}

func (s *Service) summary(ctx context.Context, r Record, size bool) (wire.Summary, error) {
	manifest := r.Image.Manifest
	item := wire.Summary{
		ID: r.ID, Names: []string{"/" + r.Name}, Image: r.Config.Image, ImageID: r.Image.ID.String(),
		ImageManifestDescriptor: &manifest, Command: command(r), Created: r.Created.Unix(), Ports: portSummaries(r),
		Labels: r.Config.Labels, State: r.State.Wire(), Status: status(r),
		NetworkSettings: &wire.NetworkSettingsSummary{Networks: endpoints(r)}, Mounts: mountPoints(r),
		Health: &wire.HealthSummary{Status: wire.NoHealthcheck},
	}
	item.HostConfig.NetworkMode = string(r.HostConfig.NetworkMode)
	item.HostConfig.Annotations = r.HostConfig.Annotations
	if !size {
		return item, nil
	}
	var err error
	item.SizeRw, item.SizeRootFs, err = s.sizes(ctx, r)
	return item, err
}

func command(r Record) string {
	words := []string{r.Path}
	for _, a := range r.Args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// status is the sentence of the column STATUS.
func status(r Record) string {
	ago := func(t time.Time) string { return units.HumanDuration(time.Since(t)) }
	switch r.State {
	case Running:
		return "Up " + ago(r.StartedAt)
	case Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", r.ExitCode, ago(r.FinishedAt))
	case Exited:
		if r.FinishedAt.IsZero() {
			return fmt.Sprintf("Exited (%d)", r.ExitCode)
		}
		return fmt.Sprintf("Exited (%d) %s ago", r.ExitCode, ago(r.FinishedAt))
	}
	return "Created"
}

// A matcher tells whether a record meets one value of a filter.
type matcher func(r Record, value string) bool

var matchers = map[string]matcher{
	"id": func(r Record, v string) bool { return strings.HasPrefix(r.ID, v) || matches(v, r.ID) },
	"name": func(r Record, v string) bool {
		return matches(v, r.Name) || matches(v, "/"+r.Name)
	},
	"exited":  func(r Record, v string) bool { return r.State == Exited && strconv.Itoa(r.ExitCode) == v },
	"status":  func(r Record, v string) bool { return string(r.State) == v },
	"health":  func(r Record, v string) bool { return v == string(wire.NoHealthcheck) },
	"label":   func(r Record, v string) bool { return hasLabel(r.Config.Labels, v) },
	"network": onNetwork,
	"volume": func(r Record, v string) bool {
		return slices.ContainsFunc(mountPoints(r), func(p wire.MountPoint) bool {
			return p.Source == v || p.Destination == path.Clean(v)
		})
	},
	"publish": func(r Record, v string) bool {
		return inPorts(v, func(p wirenet.Port) bool {
			return r.Endpoint != nil && slices.ContainsFunc(portSummaries(r), func(s wire.PortSummary) bool {
				return s.PublicPort == p.Num() && s.Type == string(p.Proto())
			})
		})
	},
	"expose": func(r Record, v string) bool {
		return inPorts(v, func(p wirenet.Port) bool { _, ok := r.Config.ExposedPorts[p]; return ok })
	},
	"isolation": func(r Record, v string) bool { return v == "default" || v == "" },
	"is-task":   func(r Record, v string) bool { return v == "false" || v == "0" },
}

func matches(pattern, s string) bool {
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(s)
}

func hasLabel(labels map[string]string, want string) bool {
	key, value, withValue := strings.Cut(want, "=")
	have, ok := labels[key]
	return ok && (!withValue || have == value)
}

func onNetwork(r Record, v string) bool {
	return string(r.HostConfig.NetworkMode) == v || r.Endpoint != nil && strings.HasPrefix(r.Endpoint.NetworkID, v) && v != ""
}

func inPorts(v string, has func(wirenet.Port) bool) bool {
	ports, err := wirenet.ParsePortRange(v)
	if err != nil {
		return false
	}
	for p := range ports.All() {
		if has(p) {
			return true
		}
	}
	return false
}

// filter makes the filters one test: values of one filter are alternatives
// (labels must all be there), and all filters must be met.
func (s *Service) filter(ctx context.Context, filters map[string]map[string]bool) (func(Record) bool, error) {
	tests := []func(Record) bool{}
	for name, values := range filters {
		if err := checkFilter(name, values); err != nil {
			return nil, err
		}
		switch name {
		case "since", "before":
			test, err := s.relative(name, values)
			if err != nil {
				return nil, err
			}
			tests = append(tests, test)
			continue
		case "ancestor":
			tests = append(tests, s.ancestor(ctx, values))
			continue
		}
		match := matchers[name]
		tests = append(tests, func(r Record) bool {
			if name == "label" {
				for v := range values {
					if !match(r, v) {
						return false
					}
				}
				return true
			}
			for v := range values {
				if match(r, v) {
					return true
				}
			}
			return len(values) == 0
		})
	}
	return func(r Record) bool {
		for _, test := range tests {
			if !test(r) {
				return false
			}
		}
		return true
	}, nil
}

func checkFilter(name string, values map[string]bool) error {
	if _, known := matchers[name]; !known && name != "since" && name != "before" && name != "ancestor" {
		return fault.New(fault.Invalid, "invalid filter '%s'", name)
	}
	for v := range values {
		var err error
		switch name {
		case "status":
			err = wire.ValidateContainerState(wire.ContainerState(v))
		case "exited":
			_, err = strconv.Atoi(v)
		case "publish", "expose":
			_, err = wirenet.ParsePortRange(v)
		case "name", "id":
			_, err = regexp.Compile(v)
		case "health":
			err = wire.ValidateHealthStatus(wire.HealthStatus(v))
		case "is-task":
			_, err = strconv.ParseBool(v)
		}
		if err != nil {
			return fault.New(fault.Invalid, "invalid filter '%s=%s': %w", name, v, err)
		}
	}
	return nil
}

// relative is the filter of what was created before or since another.
func (s *Service) relative(name string, values map[string]bool) (func(Record) bool, error) {
	for v := range values {
		other, err := s.store.find(v)
		if err != nil {
			return nil, err
		}
		return func(r Record) bool {
			if name == "before" {
				return r.Created.Before(other.Created)
			}
			return r.Created.After(other.Created)
		}, nil
	}
	return func(Record) bool { return true }, nil
}

// ancestor is the filter of the containers of an image, by the name they were
// created with or by what it stands for now.
func (s *Service) ancestor(ctx context.Context, values map[string]bool) func(Record) bool {
	ids := map[string]bool{}
	for v := range values {
		if img, err := s.cfg.Images.ResolvePlatform(ctx, v, ""); err == nil {
			ids[img.ID.String()] = true
		}
	}
	return func(r Record) bool { return values[r.Config.Image] || ids[r.Image.ID.String()] }
}

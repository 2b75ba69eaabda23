package listing

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/container/healthcheck"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/label"
	"github.com/tarehq/tare/network"
)

// A matcher tells whether a record meets one value of a filter.
type matcher func(r record.Record, value string) bool

var matchers = map[string]matcher{
	"exited":  func(r record.Record, v string) bool { return r.State == record.Exited && strconv.Itoa(r.ExitCode) == v },
	"status":  func(r record.Record, v string) bool { return string(r.State) == v },
	"health":  func(r record.Record, v string) bool { return v == string(healthcheck.Status(r.Health)) },
	"label":   func(r record.Record, v string) bool { return label.Has(r.Config.Labels, v) },
	"network": onNetwork,
	"volume": func(r record.Record, v string) bool {
		return slices.ContainsFunc(r.MountPoints(), func(p wire.MountPoint) bool {
			return p.Name == v || p.Name == "" && p.Source == v || p.Destination == path.Clean(v)
		})
	},
	"publish": func(r record.Record, v string) bool {
		return hasPort(r, v, func(s wire.PortSummary) uint16 { return s.PublicPort })
	},
	"expose": func(r record.Record, v string) bool {
		return hasPort(r, v, func(s wire.PortSummary) uint16 { return s.PrivatePort })
	},
	"isolation":  func(record.Record, string) bool { return true }, // says nothing on Linux, as with Docker
	"is-task":    func(r record.Record, v string) bool { is, err := strconv.ParseBool(v); return err == nil && !is },
	"annotation": func(r record.Record, v string) bool { return label.Has(r.HostConfig.Annotations, v) },
}

// others are the filters that are more than a test of one value.
var others = []string{"id", "name", "since", "before", "ancestor"}

// byPattern is the filter by ID or name: a part of it that a regular expression
// matches.
func byPattern(name string, values map[string]bool) func(record.Record) bool {
	var patterns []*regexp.Regexp
	for v := range values {
		if p, err := regexp.Compile(v); err == nil { // one that is none finds nothing, as in Docker
			patterns = append(patterns, p)
		}
	}
	return func(r record.Record) bool {
		text := r.ID
		if name == "name" {
			text = "/" + r.Name
		}
		return len(values) == 0 || slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool {
			return p.MatchString(text) || name == "name" && p.MatchString(r.Name)
		})
	}
}

// onNetwork tells whether the container is to be, or is, on the network of the
// name or the beginning of an ID.
func onNetwork(r record.Record, v string) bool {
	is := func(name, id string) bool { return name == v || v != "" && strings.HasPrefix(id, v) }
	if string(r.HostConfig.NetworkMode) == v || slices.ContainsFunc(r.Places(), func(p record.Place) bool { return is(p.Network, p.ID) }) {
		return true
	}
	return r.Sandbox != nil && slices.ContainsFunc(r.Sandbox.Endpoints, func(e network.Endpoint) bool { return is(e.NetworkName, e.NetworkID) })
}

// hasPort tells whether a running container has a port of the range, by the
// number that of gives.
func hasPort(r record.Record, v string, of func(wire.PortSummary) uint16) bool {
	ports, err := wirenet.ParsePortRange(v)
	if err != nil {
		return false
	}
	published := portSummaries(r)
	if len(published) == 0 {
		return false
	}
	for p := range ports.All() {
		if slices.ContainsFunc(published, func(s wire.PortSummary) bool { return of(s) == p.Num() && s.Type == string(p.Proto()) }) {
			return true
		}
	}
	return false
}

// filter makes the filters one test: values of one filter are alternatives
// (labels and annotations must all be there), and all filters must be met, but
// of publish and expose one. find resolves a container, image the name of an
// image.
func filter(filters map[string]map[string]bool, find func(nameOrID string) (record.Record, error), image func(name string) digest.Digest) (func(record.Record) bool, error) {
	tests := []func(record.Record) bool{}
	var ports []func(record.Record) bool
	for name, values := range filters {
		if err := checkFilter(name, values); err != nil {
			return nil, err
		}
		switch name {
		case "since", "before":
			test, err := relative(name, values, find)
			if err != nil {
				return nil, err
			}
			tests = append(tests, test)
		case "id", "name":
			tests = append(tests, byPattern(name, values))
		case "ancestor":
			tests = append(tests, ancestor(values, image))
		case "publish", "expose":
			ports = append(ports, anyOf(matchers[name], values))
		case "label", "annotation":
			tests = append(tests, allOf(matchers[name], values))
		default:
			tests = append(tests, anyOf(matchers[name], values))
		}
	}
	if len(ports) > 0 {
		tests = append(tests, func(r record.Record) bool {
			return slices.ContainsFunc(ports, func(test func(record.Record) bool) bool { return test(r) })
		})
	}
	return func(r record.Record) bool {
		for _, test := range tests {
			if !test(r) {
				return false
			}
		}
		return true
	}, nil
}

func anyOf(match matcher, values map[string]bool) func(record.Record) bool {
	return func(r record.Record) bool {
		for v := range values {
			if match(r, v) {
				return true
			}
		}
		return len(values) == 0
	}
}

func allOf(match matcher, values map[string]bool) func(record.Record) bool {
	return func(r record.Record) bool {
		for v := range values {
			if !match(r, v) {
				return false
			}
		}
		return true
	}
}

func checkFilter(name string, values map[string]bool) error {
	if _, known := matchers[name]; !known && !slices.Contains(others, name) {
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
			port, _, _ := strings.Cut(v, "/")
			for bound := range strings.SplitSeq(port, "-") {
				if _, wrong := strconv.ParseUint(bound, 10, 16); wrong != nil && err == nil {
					err = wrong
				}
			}
			if _, wrong := wirenet.ParsePortRange(v); wrong != nil && err == nil {
				err = wrong
			}
			if err != nil {
				return fault.New(fault.Invalid, "error while looking up for %s %s: %w", name, v, err)
			}
		case "health":
			err = wire.ValidateHealthStatus(wire.HealthStatus(v))
		case "is-task":
			if _, err := strconv.ParseBool(v); err != nil {
				return fault.New(fault.Invalid, "invalid filter 'is-task=[%s]'", v)
			}
		}
		if err != nil {
			return fault.New(fault.Invalid, "invalid filter '%s=%s': %w", name, v, err)
		}
	}
	return nil
}

// relative is the filter of what was created before or since another.
func relative(name string, values map[string]bool, find func(nameOrID string) (record.Record, error)) (func(record.Record) bool, error) {
	for v := range values {
		other, err := find(v)
		if err != nil {
			return nil, err
		}
		return func(r record.Record) bool {
			if name == "before" {
				return r.Created.Before(other.Created)
			}
			return r.Created.After(other.Created)
		}, nil
	}
	return func(record.Record) bool { return true }, nil
}

// ancestor is the filter of the containers of an image, by the name they were
// created with or by what it stands for now.
func ancestor(values map[string]bool, image func(name string) digest.Digest) func(record.Record) bool {
	ids := map[digest.Digest]bool{}
	for v := range values {
		ids[image(v)] = true
	}
	return func(r record.Record) bool { return values[r.Config.Image] || ids[r.Image.ID] }
}

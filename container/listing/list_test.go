package listing

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/container/links"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
)

// taggedImages knows images by name, of which a list needs no more.
type taggedImages struct {
	ids map[string]digest.Digest
}

func (t taggedImages) ID(ref string) digest.Digest { return t.ids[ref] }

func TestList(t *testing.T) {
	st := recordtest.Store(t, t.TempDir())
	s := &Listing{Store: st, Networks: &network.Service{}, Links: links.New(st, nil), Images: taggedImages{ids: map[string]digest.Digest{"app:1": "sha256:new", "app:2": "sha256:old"}}}
	for i, name := range []string{"up", "down"} {
		recordtest.Add(t, s.Store, strings.Repeat(string(rune('a'+i)), 64), name, false)
		r := recordtest.Stored(t, s.Store, strings.Repeat(string(rune('a'+i)), 64))
		r.Created = time.Unix(int64(i), 0)
		r.Config.Image, r.Image.ID = []string{"app:1", "app:2"}[i], "sha256:old"
		r.Config.ExposedPorts = wirenet.PortSet{wirenet.MustParsePort("80/tcp"): {}}
		r.HostConfig.Annotations = map[string]string{"a": name, "b": ""}
		r.Config.Labels = map[string]string{"l": name}
		r.HostConfig.NetworkMode = []wire.NetworkMode{"bridge", "host"}[i]
		r.HostConfig.Binds = [][]string{{"/srv:/data"}, nil}[i]
		r.State = []record.State{record.Running, record.Exited}[i]
		if r.State == record.Running {
			r.Sandbox = &network.Sandbox{Endpoints: []network.Endpoint{{Gateway: netip.MustParseAddr("10.0.0.1")}}, Ports: []network.Published{{HostPort: 8080, ContainerPort: 81, Proto: "tcp"}}}
		}
	}
	for query, want := range map[string]string{
		"all":                        "down up",
		"":                           "up",
		"status=exited":              "down",
		"exited=0":                   "",
		"all exited=0":               "down",
		"since=up":                   "",
		"before=down":                "up",
		"all annotation=a":           "down up",
		"all annotation=a=up":        "up",
		"annotation=a annotation=no": "",
		"expose=81":                  "up",
		"expose=80":                  "up",
		"all expose=80":              "up",
		"publish=8080 expose=99":     "up",
		"publish=99 expose=99":       "",
		"is-task=f":                  "up",
		"is-task=true":               "",
		"all id=aaaa":                "up",
		"all id=bb id=cc":            "down",
		"all name=ow":                "down",
		"all name=/up":               "up",
		"all label=l":                "down up",
		"all label=l=up":             "up",
		"all label=l=up label=l=no":  "",
		"all network=host":           "down",
		"all network=nosuch":         "",
		"all volume=/data":           "up",
		"all volume=/srv":            "up",
		"all volume=/other":          "",
		"all isolation=default":      "down up",
		"all isolation=hyperv":       "down up",
		"all health=none":            "down up",
		"all health=healthy":         "",
		"all ancestor=app:2":         "down up",
		"all ancestor=app:1":         "up",
	} {
		o := Options{Filters: map[string]map[string]bool{}}
		for _, word := range strings.Fields(query) {
			key, value, _ := strings.Cut(word, "=")
			if key == "all" {
				o.All = true
				continue
			}
			if o.Filters[key] == nil {
				o.Filters[key] = map[string]bool{}
			}
			o.Filters[key][value] = true
		}
		list, err := s.List(t.Context(), o)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		var got []string
		for _, c := range list {
			got = append(got, strings.TrimPrefix(c.Names[0], "/"))
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if _, err := s.List(t.Context(), Options{Filters: map[string]map[string]bool{"nosuch": nil}}); !errors.Is(err, fault.Invalid) {
		t.Errorf("an unknown filter: %v", err)
	}
	list, err := s.List(t.Context(), Options{All: true})
	if err != nil || !slices.ContainsFunc(list, func(c wire.Summary) bool { return c.Names[0] == "/down" && c.Image == "app:2" }) ||
		!slices.ContainsFunc(list, func(c wire.Summary) bool { return c.Names[0] == "/up" && c.Image == "sha256:old" }) {
		t.Errorf("the images' names: %v %+v", err, list)
	}
}

func TestHealthInList(t *testing.T) {
	st := recordtest.Store(t, t.TempDir())
	s := &Listing{Store: st, Networks: &network.Service{}, Links: links.New(st, nil), Images: taggedImages{}}
	for i, status := range []wire.HealthStatus{wire.Starting, wire.Healthy, wire.Unhealthy, wire.NoHealthcheck} {
		id := strings.Repeat(string(rune('a'+i)), 64)
		recordtest.Add(t, s.Store, id, string(status), false)
		r := recordtest.Stored(t, s.Store, id)
		r.State, r.StartedAt = record.Running, time.Now().Add(-time.Minute)
		if status != wire.NoHealthcheck {
			r.Health = &wire.Health{Status: status, FailingStreak: i}
		}
	}
	for status, want := range map[string]string{"starting": "Up About a minute (health: starting)", "healthy": "Up About a minute (healthy)",
		"unhealthy": "Up About a minute (unhealthy)", "none": "Up About a minute"} {
		list, err := s.List(t.Context(), Options{Filters: map[string]map[string]bool{"health": {status: true}}})
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

// Where the container itself is reached, no port of the host is shown.
func TestPortMapOfWhatIsRouted(t *testing.T) {
	r := record.Record{Spec: record.Spec{Config: &wire.Config{}, HostConfig: &wire.HostConfig{}}}
	r.State = record.Running
	e := network.Endpoint{Address: netip.MustParsePrefix("10.0.0.2/24"), Gateway: netip.MustParseAddr("10.0.0.1")}
	r.Sandbox = &network.Sandbox{Endpoints: []network.Endpoint{e}, Ports: []network.Published{{ContainerPort: 80, Proto: "tcp"}}}
	for key, bindings := range portMap(r) {
		if len(bindings) != 1 || bindings[0].HostPort != "" {
			t.Errorf("%s: %+v", key, bindings)
		}
	}
	if len(portMap(r)) != 1 {
		t.Errorf("%+v", portMap(r))
	}
}

// Each filter stands in a query of TestList, or in a test of its own here.
func TestEveryFilterIsShown(t *testing.T) {
	text, err := os.ReadFile("list_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(slices.Collect(maps.Keys(matchers)), others...) {
		if !strings.Contains(string(text), name+"=") && !strings.Contains(string(text), `"`+name+`": {`) {
			t.Errorf("no test has the filter %s", name)
		}
	}
}

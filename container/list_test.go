package container

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/network"
)

// taggedImages knows images by name, of which a list needs no more.
type taggedImages struct {
	Images
	ids map[string]digest.Digest
}

func (t taggedImages) ID(ref string) digest.Digest { return t.ids[ref] }

func TestList(t *testing.T) {
	s := &Service{store: testStore(t, t.TempDir()), cfg: Config{Networks: &network.Service{}, Images: taggedImages{ids: map[string]digest.Digest{"app:1": "sha256:new", "app:2": "sha256:old"}}}}
	for i, name := range []string{"up", "down"} {
		addRecord(t, s.store, strings.Repeat(string(rune('a'+i)), 64), name, false)
		r := s.store.byID[strings.Repeat(string(rune('a'+i)), 64)]
		r.Created = time.Unix(int64(i), 0)
		r.Config.Image, r.Image.ID = []string{"app:1", "app:2"}[i], "sha256:old"
		r.Config.ExposedPorts = wirenet.PortSet{wirenet.MustParsePort("80/tcp"): {}}
		r.HostConfig.Annotations = map[string]string{"a": name, "b": ""}
		r.Config.Labels = map[string]string{"l": name}
		r.HostConfig.NetworkMode = []wire.NetworkMode{"bridge", "host"}[i]
		r.HostConfig.Binds = [][]string{{"/srv:/data"}, nil}[i]
		r.State = []State{Running, Exited}[i]
		if r.State == Running {
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
		o := ListOptions{Filters: map[string]map[string]bool{}}
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
	list, err := s.List(t.Context(), ListOptions{All: true})
	if err != nil || !slices.ContainsFunc(list, func(c wire.Summary) bool { return c.Names[0] == "/down" && c.Image == "app:2" }) ||
		!slices.ContainsFunc(list, func(c wire.Summary) bool { return c.Names[0] == "/up" && c.Image == "sha256:old" }) {
		t.Errorf("the images' names: %v %+v", err, list)
	}
}

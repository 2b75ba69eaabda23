package format

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
)

// Every field of Docker's structs that JSON may leave out or write as null is
// in the shapes.
func TestShapesAreWhole(t *testing.T) {
	for _, c := range []struct {
		kind, path string
		v          any
	}{
		{"container", "", container.InspectResponse{}}, {"container", "State", container.State{}},
		{"container", "Config", container.Config{}}, {"container", "HostConfig", container.HostConfig{}},
		{"container", "HostConfig.LogConfig", container.LogConfig{}}, {"container", "NetworkSettings.Networks.*", network.EndpointSettings{}},
		{"container", "NetworkSettings", container.NetworkSettings{}},
		{"image", "", image.InspectResponse{}}, {"image", "Config", dockerspec.DockerOCIImageConfig{}}, {"image", "RootFS", image.RootFS{}},
	} {
		have := strings.Fields(shapes[c.kind][c.path])
		for _, field := range optional(reflect.TypeOf(c.v)) {
			if !slices.Contains(have, field) {
				t.Errorf("%s %q lacks %s", c.kind, c.path, field)
			}
		}
	}
}

// always are the fields that every answer has, or that are text in JSON.
var always = []string{"State", "HostConfig", "Config", "NetworkSettings", "Args", "RootFS", "MacAddress"}

func optional(t reflect.Type) []string {
	var list []string
	for f := range t.Fields() {
		if f.Anonymous {
			list = append(list, optional(f.Type)...)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		zero := ""
		switch f.Type.Kind() {
		case reflect.Slice:
			zero = "[]"
		case reflect.Map:
			zero = "{}"
		case reflect.Pointer:
			zero = "nil"
		case reflect.String:
			zero = `""`
		case reflect.Bool:
			zero = "false"
		}
		mayMiss := strings.Contains(options, "omit") || slices.Contains([]string{"[]", "{}", "nil"}, zero)
		if zero != "" && mayMiss && !slices.Contains(always, f.Name) {
			list = append(list, name+"="+zero)
		}
	}
	return list
}

func TestTemplateFindsWhatJSONLeavesOut(t *testing.T) {
	raw := `{"Id":"x","Args":["a","b"],"State":{"Status":"created"},"Config":{"Env":null},"HostConfig":{"Binds":null},"NetworkSettings":{"Networks":{"bridge":{"Aliases":null}}}}`
	for text, want := range map[string]string{
		`{{if .State.Health}}{{.State.Health.Status}}{{end}}.`: ".\n",
		`{{.HostConfig.Binds}}{{.HostConfig.Tmpfs}}`:           "[]map[]\n",
		`{{.HostConfig.Init}}{{json .HostConfig.Mounts}}`:      "<nil>null\n",
		`{{.Config.WorkingDir}}{{.Config.ArgsEscaped}}`:        "false\n",
		`{{.NetworkSettings.Networks.bridge.Aliases}}`:         "[]\n",
		`{{range .Config.Env}}{{.}}{{end}}{{.HostConfig.DNS}}`: "[]\n",
		`{{json .State}}`:            `{"Status":"created"}` + "\n",
		`{{json (slice .Args 0 1)}}`: `["a"]` + "\n",
		`{{json .Args}}`:             `["a","b"]` + "\n",
	} {
		i, err := NewInspector(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := i.One([]byte(raw)); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		`{{.State.Health.Status}}`: `map has no entry for key "Health"`,
		`{{.Nope}}`:                `map has no entry for key "Nope"`,
	} {
		i, err := NewInspector(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := i.One([]byte(raw)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

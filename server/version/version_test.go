package version

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	wireimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/mount"
	wirenet "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

func asMap(t *testing.T, v any) map[string]any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCutVersion(t *testing.T) {
	for path, want := range map[string]struct {
		Version
		rest string
	}{
		"/v1.41/info": {Version{1, 41}, "/info"}, "/info": {Max, "/info"}, "/v1/x": {Version{1, 0}, "/x"},
		"/version": {Max, "/version"}, "/volumes": {Max, "/volumes"}, "/v1.24": {Version{1, 24}, "/"}, "/v/x": {Max, "/v/x"},
	} {
		v, rest, err := Cut(path)
		if err != nil || v != want.Version || rest != want.rest {
			t.Errorf("%s: %v %s %v", path, v, rest, err)
		}
	}
}

func TestInspectOfOldVersions(t *testing.T) {
	c := wire.InspectResponse{
		ID: "0123456789abcdef", Driver: "overlayfs", Config: &wire.Config{Hostname: "h"}, Storage: &storage.Storage{},
		NetworkSettings: &wire.NetworkSettings{SandboxID: "s", Networks: map[string]*wirenet.EndpointSettings{
			"bridge": {IPAddress: netip.MustParseAddr("172.17.0.2"), IPPrefixLen: 16, Gateway: netip.MustParseAddr("172.17.0.1"), EndpointID: "e"},
		}},
	}
	now := asMap(t, Max.Container(c))
	if ns := now["NetworkSettings"].(map[string]any); ns["IPAddress"] != nil || now["GraphDriver"] != nil || now["Storage"] == nil {
		t.Errorf("the newest has %v", now)
	}
	for _, minor := range []int{24, 41, 50, 51} {
		old := asMap(t, Version{1, minor}.Container(c))
		ns := old["NetworkSettings"].(map[string]any)
		if ns["IPAddress"] != "172.17.0.2" || ns["Gateway"] != "172.17.0.1" || ns["IPPrefixLen"] != 16.0 || ns["EndpointID"] != "e" || ns["SandboxID"] != "s" || ns["Bridge"] != "" || ns["GlobalIPv6Address"] != "" {
			t.Errorf("1.%d has %v", minor, ns)
		}
		if old["GraphDriver"].(map[string]any)["Name"] != "overlayfs" || old["Id"] != c.ID || old["Storage"] != nil {
			t.Errorf("1.%d has %v", minor, old)
		}
	}
}

func TestCreateWarnsOfMACAddress(t *testing.T) {
	b := CreateBody{MacAddress: wirenet.HardwareAddr{2, 0x42, 0xac, 0x11, 0, 2}}
	for minor, want := range map[int]int{43: 0, 44: 1, 51: 1, 52: 0} {
		if got := (Version{1, minor}).CreateWarnings(&b); len(got) != want {
			t.Errorf("1.%d: %q", minor, got)
		}
	}
}

func TestCreateOfOldVersions(t *testing.T) {
	parse := func(text string) *CreateBody {
		var b CreateBody
		if err := json.Unmarshal([]byte(text), &b); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	b := parse(`{"Image":"x","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"default","AutoRemove":true,"ConsoleSize":[1,2]}}`)
	if err := (Version{1, 24}).Create(b, 1); err != nil {
		t.Fatal(err)
	}
	hc := b.HostConfig
	if hc.NetworkMode != "bridge" || hc.AutoRemove || hc.IpcMode != "shareable" || hc.CgroupnsMode != "host" || hc.ConsoleSize != [2]uint{} ||
		b.NetworkingConfig.EndpointsConfig["bridge"].MacAddress.String() != "02:42:ac:11:00:02" {
		t.Errorf("%+v %+v", hc, b.NetworkingConfig)
	}
	b = parse(`{"Image":"x","HostConfig":{"NetworkMode":"bridge","ConsoleSize":[1,2]},"NetworkingConfig":{"EndpointsConfig":{"default":{"MacAddress":"02:42:ac:11:00:02"}}}}`)
	if err := Max.Create(b, 1); err != nil {
		t.Fatal(err)
	}
	if hc := b.HostConfig; hc.IpcMode != "" || hc.CgroupnsMode != "" || hc.ConsoleSize != [2]uint{1, 2} || b.NetworkingConfig.EndpointsConfig["bridge"].MacAddress.String() != "02:42:ac:11:00:02" {
		t.Errorf("%+v %+v", hc, b.NetworkingConfig)
	}
	b = parse(`{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:42:ac:11:00:02"}}}}`)
	if err := (Version{1, 43}).Create(b, 1); err != nil || len(b.NetworkingConfig.EndpointsConfig["bridge"].MacAddress) != 0 {
		t.Errorf("an endpoint's own MAC address before 1.44: %v %+v", err, b.NetworkingConfig)
	}
	for text, want := range map[string]string{
		`1.52 {"Image":"x","MacAddress":"02:42:ac:11:00:02"}`:                                                        "container-wide MAC address no longer supported; use endpoint-specific MAC address instead",
		`1.51 {"Image":"x","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"host"}}`:                    "",
		`1.43 {"Image":"x","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"host"}}`:                    "conflicting options: mac-address and the network mode",
		`1.44 {"Image":"x","MacAddress":"02:42:ac:11:00:02","NetworkingConfig":{"EndpointsConfig":{"net":{}}}}`:      "if a container-wide MAC address is supplied, HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
		`1.43 {"Image":"x","MacAddress":"02:42:ac:11:00:02","NetworkingConfig":{"EndpointsConfig":{"net":{}}}}`:      "",
		`1.43 {"Image":"x","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}`:                                  "Container cannot be created with multiple network endpoints: a, b",
		`1.42 {"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","VolumeOptions":{}}]}}`:                            `VolumeOptions must not be specified on mount type "bind"`,
		`1.41 {"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","VolumeOptions":{}}]}}`:                            "",
		`1.43 {"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","BindOptions":{"ReadOnlyForceRecursive":true}}]}}`: "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
		`1.47 {"Image":"x","HostConfig":{"Mounts":[{"Type":"image"}]}}`:                                              `Mount type "Image" needs API v1.48 or newer`,
	} {
		number, body, _ := strings.Cut(text, " ")
		v, _, _ := Cut("/v" + number + "/x")
		err := v.Create(parse(body), 1)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	b = parse(`{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","ReadOnly":true}]}}`)
	if err := (Version{1, 41}).Create(b, 1); err != nil || b.HostConfig.Mounts[0].Type != mount.TypeBind || !b.HostConfig.Mounts[0].BindOptions.ReadOnlyNonRecursive {
		t.Errorf("%v %+v", err, b.HostConfig.Mounts)
	}
}

func TestImagesOfOldVersions(t *testing.T) {
	first := func(minor int) map[string]any {
		text, err := json.Marshal(Version{1, minor}.Listed([]wireimage.Summary{{ID: "i", Size: 5, Containers: 2}}))
		if err != nil {
			t.Fatal(err)
		}
		var list []map[string]any
		if err := json.Unmarshal(text, &list); err != nil {
			t.Fatal(err)
		}
		return list[0]
	}
	if m := first(41); m["VirtualSize"] != 5.0 || m["RepoTags"].([]any)[0] != "<none>:<none>" || m["Containers"] != -1.0 {
		t.Error(m)
	}
	if m := first(52); m["VirtualSize"] != nil || len(m["RepoTags"].([]any)) != 0 || m["Containers"] != 2.0 {
		t.Error(m)
	}
	detail := func(minor int) map[string]any {
		v, err := Version{1, minor}.Image(wireimage.InspectResponse{ID: "i", Size: 5}, func(id string) string { return "parent of " + id })
		if err != nil {
			t.Fatal(err)
		}
		return asMap(t, v)
	}
	config := func(minor int) map[string]any { return detail(minor)["Config"].(map[string]any) }
	if c := config(41); c["Hostname"] != "" || c["WorkingDir"] != "" {
		t.Error(c)
	}
	if _, ok := config(50)["Hostname"]; ok {
		t.Error("1.50 has a host name")
	}
	if c, ok := config(50)["Cmd"]; !ok || c != nil {
		t.Error("1.50 lacks Cmd")
	}
	if d := detail(41); d["VirtualSize"] != 5.0 || d["Created"] != "0001-01-01T00:00:00Z" || d["Parent"] != "parent of i" {
		t.Error(d)
	}
	if d := detail(56); d["Parent"] != nil || d["Config"] != nil {
		t.Error(d)
	}
}

func TestEventsOfOldVersions(t *testing.T) {
	create := events.Message{Type: events.ImageEventType, Action: events.ActionCreate}
	if (Version{1, 45}).Event(create) != nil || (Version{1, 46}).Event(create) == nil {
		t.Error("image create")
	}
}

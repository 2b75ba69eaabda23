package client

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/internal/plainjson"
)

// TestWireShapes fills each of our structs, reads it as the API's own struct,
// writes that again, and finds every field back: the name and the type of all
// that is sent or read agree.
func TestWireShapes(t *testing.T) {
	for _, pair := range []struct{ ours, theirs any }{
		{&CreateRequest{}, &container.CreateRequest{}},
		{&CreateResponse{}, &container.CreateResponse{}},
		{&ContainerSummary{}, &container.Summary{}},
		{&WaitResponse{}, &container.WaitResponse{}},
		{&ExecRequest{}, &container.ExecCreateRequest{}},
		{&ExecStartRequest{}, &container.ExecStartRequest{}},
		{&ExecState{}, &container.ExecInspectResponse{}},
		{&UpdateConfig{}, &container.UpdateConfig{}},
		{&Top{}, &container.TopResponse{}},
		{&Stats{}, &container.StatsResponse{}},
		{&IDResponse{}, &container.ExecCreateResponse{}},
		{&ImageSummary{}, &image.Summary{}},
		{&ImageHistoryItem{}, &image.HistoryResponseItem{}},
		{&ImageDeleted{}, &image.DeleteResponse{}},
		{&Progress{}, &jsonstream.Message{}},
		{&Credentials{}, &registry.AuthConfig{}},
		{&AuthResponse{}, &registry.AuthResponse{}},
		{&SearchResult{}, &registry.SearchResult{}},
		{&FilesystemChange{}, &container.FilesystemChange{}},
		{&DiskUsage{}, &system.DiskUsage{}},
		{&Info{}, &system.Info{}},
		{&ServerVersion{}, &system.VersionResponse{}},
		{&Event{}, &events.Message{}},
		{&NetworkSummary{}, &network.Summary{}},
		{&NetworkCreateRequest{}, &network.CreateRequest{}},
		{&NetworkConnectRequest{}, &network.ConnectRequest{}},
		{&NetworkDisconnectRequest{}, &network.DisconnectRequest{}},
		{&ContainerState{}, &container.InspectResponse{}},
	} {
		ours := reflect.ValueOf(pair.ours)
		t.Run(ours.Elem().Type().Name(), func(t *testing.T) {
			fill(ours.Elem(), "")
			text, err := json.Marshal(pair.ours)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, pair.theirs); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			again, err := json.Marshal(pair.theirs)
			if err != nil {
				t.Fatal(err)
			}
			var a, b any
			json.Unmarshal(text, &a)
			json.Unmarshal(again, &b)
			contained(t, "", a, b)
			// What the daemon sends must be read as it was meant.
			back := reflect.New(ours.Elem().Type())
			if err := json.Unmarshal(again, back.Interface()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back.Interface(), pair.ours) {
				t.Errorf("read back\n%+v\nwant\n%+v", back.Elem(), ours.Elem())
			}
		})
	}
}

// TestLists reads lists as encoding/json does.
func TestLists(t *testing.T) {
	for _, want := range []any{&[]ContainerSummary{}, &[]ImageSummary{}} {
		fill(reflect.ValueOf(want).Elem(), "")
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(want).Elem())
		if err := plainjson.Unmarshal(text, got.Interface()); err != nil || !reflect.DeepEqual(got.Interface(), want) {
			t.Errorf("%s: %+v, %v", text, got.Elem(), err)
		}
	}
}

// TestBriefImages reads what tared's own list has, all of it.
func TestBriefImages(t *testing.T) {
	sent := inventory.Brief{Containers: 1, ContentSize: 2, Created: 3, ID: "i", RepoDigests: []string{"d"}, RepoTags: []string{"t"}, SharedSize: 4, Size: 5}
	text, err := json.Marshal([]inventory.Brief{sent})
	if err != nil {
		t.Fatal(err)
	}
	var got []ImageSummary
	if err := plainjson.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := []ImageSummary{{Containers: 1, ContentSize: 2, Created: 3, Id: "i", RepoDigests: []string{"d"}, RepoTags: []string{"t"}, SharedSize: 4, Size: 5}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s was read as %+v", text, got)
	}
}

// contained checks that all of a is in b; names compare exactly.
func contained(t *testing.T, path string, a, b any) {
	t.Helper()
	switch a := a.(type) {
	case map[string]any:
		m, _ := b.(map[string]any)
		for key, v := range a {
			other, ok := m[key]
			if !ok {
				t.Errorf("%s.%s: the API has no such field", path, key)
				continue
			}
			contained(t, path+"."+key, v, other)
		}
	case []any:
		l, _ := b.([]any)
		if len(l) != len(a) {
			t.Errorf("%s: %v, want %v", path, b, a)
			return
		}
		for i := range a {
			contained(t, path+"[]", a[i], l[i])
		}
	default:
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %v, want %v", path, b, a)
		}
	}
}

// samples are texts that the API's own types insist on.
var samples = map[string]string{"Created": "2026-01-02T03:04:05Z",
	"Subnet": "10.0.0.0/8", "IPRange": "10.1.0.0/16", "Gateway": "10.0.0.1", "AuxiliaryAddresses[]": "10.0.0.9",
	"HostIp": "1.2.3.4", "IP": "1.2.3.4", "IPv4Address": "1.2.3.4", "IPv6Address": "fd00::1", "LinkLocalIPs": "1.2.3.4",
	"Read": "2026-01-02T03:04:05Z", "CreatedAt": "2026-01-02T03:04:05Z", "LastUsedAt": "2026-01-02T03:04:05Z", "Dns": "1.2.3.4", "MacAddress": "92:d0:c6:0a:29:33", "InsecureRegistryCIDRs": "10.0.0.0/8", "ExposedPorts": "80/tcp", "PortBindings": "80/tcp", "Ports": "80/tcp",
}

// fill gives every field a value other than zero.
func fill(v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), name)
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "ContentSize" { // tared's own, see TestBriefImages
				fill(v.Field(i), name)
			}
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte(`{"a":1}`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), name)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), name)
		}
	case reflect.Map:
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, name)
		fill(elem, name+"[]")
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, elem)
	case reflect.String:
		if s, ok := samples[name]; ok {
			v.SetString(s)
			return
		}
		v.SetString("s-" + name)
	case reflect.Bool:
		v.SetBool(true)
	default:
		if v.CanInt() {
			v.SetInt(7)
		} else {
			v.SetUint(7)
		}
	}
}

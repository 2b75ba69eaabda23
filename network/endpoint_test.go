package network

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReadsAnOldEndpoint: what a daemon stored that knew one network only.
func TestReadsAnOldEndpoint(t *testing.T) {
	const old = `{"ID":"e1","SandboxID":"s1","ContainerID":"c1","Name":"web","NetworkID":"n1","HostInterface":"tvabcde12345678",` +
		`"MAC":"02:42:ac:11:00:02","Address":"172.17.0.2/16","Gateway":"172.17.0.1",` +
		`"Ports":[{"HostIP":"0.0.0.0","HostPort":8080,"ContainerPort":80,"Proto":"tcp"}]}`
	want := Sandbox{ID: "s1", ContainerID: "c1", Name: "web", Ports: []Published{{HostIP: netip.IPv4Unspecified(), HostPort: 8080, ContainerPort: 80, Proto: "tcp"}},
		Endpoints: []Endpoint{{ID: "e1", NetworkID: "n1", NetworkName: "bridge", Driver: "bridge", HostInterface: "tvabcde12345678", Interface: "eth0",
			MAC: "02:42:ac:11:00:02", Address: netip.MustParsePrefix("172.17.0.2/16"), Gateway: addr("172.17.0.1")}}}
	var got Sandbox
	must(t, json.Unmarshal([]byte(old), &got))
	compare := cmp.Comparer(func(a, b Sandbox) bool {
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		return string(x) == string(y)
	})
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Error(diff)
	}
	data, err := json.Marshal(got)
	must(t, err)
	var again Sandbox
	must(t, json.Unmarshal(data, &again))
	if diff := cmp.Diff(want, again, compare); diff != "" {
		t.Error(diff)
	}
}

package container

import (
	"testing"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/network"
)

// A run may end, and its bundle go, while a place of it is changed.
func TestPlaceOfARunThatIsOver(t *testing.T) {
	dir := t.TempDir()
	st := recordtest.Store(t, dir+"/store")
	recordtest.Add(t, st, "x", "name", false)
	r, err := st.Find("x")
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{store: st, bundles: bundles{dir: dir + "/gone"}, cfg: Config{Networks: new(network.Service)}}
	if err := (&connection{containers: s, r: r}).record(t.Context(), network.Sandbox{ID: "sandbox"}); err != nil {
		t.Error(err)
	}
}

// Nobody looks up, or waits for, an address of a container that has switched
// IPv6 off.
func TestWithoutIPv6(t *testing.T) {
	h := &wire.HostConfig{NetworkMode: "mine", Sysctls: map[string]string{"net.ipv6.conf.all.disable_ipv6": "1"}}
	r := &Record{Spec: record.Spec{ID: "x", Config: &wire.Config{}, HostConfig: h}}
	req, err := networkRequest(r, &create.Settings{}, true)
	if err != nil || len(req.Wants) != 1 || !req.Wants[0].WithoutIPv6 {
		t.Errorf("%+v, %v", req.Wants, err)
	}
}

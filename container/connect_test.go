package container

import (
	"testing"

	"github.com/tarehq/tare/network"
)

// A run may end, and its bundle go, while a place of it is changed.
func TestPlaceOfARunThatIsOver(t *testing.T) {
	dir := t.TempDir()
	st := testStore(t, dir+"/store")
	addRecord(t, st, "x", "name", false)
	r, err := st.find("x")
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{store: st, bundles: bundles{dir: dir + "/gone"}, cfg: Config{Networks: new(network.Service)}}
	if err := (&connection{containers: s, r: r}).record(t.Context(), network.Sandbox{ID: "sandbox"}); err != nil {
		t.Error(err)
	}
}

package container

import (
	"log/slog"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/event"
)

// Where swap is not counted, the limit is dropped with Docker's words.
func TestUpdateWithoutSwap(t *testing.T) {
	st, err := record.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	recordtest.Add(t, st, "aa11", "one", false)
	s := &Service{store: st, cfg: Config{Events: &event.Log{}}}
	warnings, err := s.Update(t.Context(), "one", wire.UpdateConfig{Resources: wire.Resources{Memory: 20 << 20}})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "Memory limited without swap") {
		t.Errorf("%q, %v", warnings, err)
	}
	if r, err := st.Find("one"); err != nil || r.HostConfig.Memory != 20<<20 || r.HostConfig.MemorySwap != -1 {
		t.Errorf("%+v, %v", r.HostConfig, err)
	}
}

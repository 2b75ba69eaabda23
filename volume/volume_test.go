package volume

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
)

func open(t *testing.T, root string) *Service {
	t.Helper()
	s, err := Open(context.Background(), Config{DataRoot: root, Events: &event.Log{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *Service) mustCreate(t *testing.T, req CreateRequest) Record {
	t.Helper()
	r, _, err := s.Hold(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestVolumesSurviveTheDaemon(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	s := open(t, root)
	v, err := s.Create(ctx, CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if v.Mountpoint != filepath.Join(root, "volumes/data/_data") || v.Driver != Local || v.Scope != "local" {
		t.Errorf("it is %+v", v)
	}
	if _, err := s.Create(ctx, CreateRequest{Name: "data", Labels: map[string]string{"a": "c"}}); err != nil {
		t.Errorf("a volume that is there: %v", err)
	}
	if _, err := s.Create(ctx, CreateRequest{Name: "data", Driver: "other"}); !errors.Is(err, fault.NotFound) ||
		err.Error() != `create data: error looking up volume plugin other: plugin "other" not found` { // before whose it is
		t.Errorf("the name of another driver's volume: %v", err)
	}
	if err := os.WriteFile(filepath.Join(v.Mountpoint, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, root)
	w, err := again.Inspect(ctx, "data")
	if err != nil || w.Labels["a"] != "b" || w.CreatedAt != v.CreatedAt {
		t.Errorf("after a restart it is %+v, %v", w, err)
	}
	if err := again.Remove(ctx, "data", false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(v.Mountpoint); !os.IsNotExist(err) {
		t.Error("its data are still there")
	}
	err = again.Remove(ctx, "data", false)
	if !errors.Is(err, fault.NotFound) || err.Error() != "get data: no such volume" {
		t.Errorf("removed twice: %v", err)
	}
	if err := again.Remove(ctx, "data", true); err != nil {
		t.Errorf("removed twice, forced: %v", err)
	}
}

func TestNamesOfVolumes(t *testing.T) {
	s := open(t, t.TempDir())
	for _, bad := range []string{"a", ".a", "..", "a/b", "a b", "-a", "a\x00b", strings.Repeat("x", 256)} {
		if _, err := s.Create(context.Background(), CreateRequest{Name: bad}); !errors.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), "create "+bad+": ") {
			t.Errorf("the name %q: %v", bad, err)
		}
	}
	v, err := s.Create(context.Background(), CreateRequest{})
	if _, is := v.Labels[AnonymousLabel]; err != nil || !is || len(v.Name) != 64 {
		t.Errorf("without a name it is %+v, %v", v, err)
	}
}

func TestVolumesInUseStay(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir())
	s.mustCreate(t, CreateRequest{Name: "data", Holder: "c1"})
	err := s.Remove(ctx, "data", true)
	if !errors.Is(err, fault.Conflict) || err.Error() != "remove data: volume is in use - [c1]" {
		t.Errorf("held: %v", err)
	}
	s.SetUsers(func() map[string][]string { return map[string][]string{"data": {"c1", "c2"}} })
	s.Release("c1")
	if err := s.Remove(ctx, "data", false); err == nil || err.Error() != "remove data: volume is in use - [c1, c2]" {
		t.Errorf("used: %v", err)
	}
	s.SetUsers(func() map[string][]string { return nil })
	if err := s.Remove(ctx, "data", false); err != nil {
		t.Errorf("used no more: %v", err)
	}
}

// What a crash left of volumes that were being made or removed goes; what is not
// understood stays.
func TestLeftovers(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{".new-1/_data/sub", ".gone-2/_data", "strange/_data", "torn/_data"} {
		if err := os.MkdirAll(filepath.Join(root, "volumes", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "volumes/torn/volume.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, root)
	for name, want := range map[string]bool{".new-1": false, ".gone-2": false, "strange": true, "torn": true} {
		if _, err := os.Stat(filepath.Join(root, "volumes", name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Create(context.Background(), CreateRequest{Name: "strange"}); !errors.Is(err, fault.Conflict) {
		t.Errorf("a name that is in the way: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "volumes/strange/_data")); err != nil {
		t.Error(err)
	}
}

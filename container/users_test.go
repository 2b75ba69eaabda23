package container

import (
	"reflect"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/image/catalog"
)

// Users shows each container under its image, as soon as it is there and as long
// as it is.
func TestUsers(t *testing.T) {
	s := &Service{store: recordtest.Store(t, t.TempDir())}
	recordtest.Add(t, s.store, "aa11", "one", false)
	recordtest.Add(t, s.store, "aa22", "two", false)
	recordtest.Stored(t, s.store, "aa11").Image.ID, recordtest.Stored(t, s.store, "aa22").Image.ID = "sha256:1", "sha256:2"
	if _, err := s.store.Update("aa11", func(p *record.Progress) error { p.State, p.Pid = record.Running, 7; return nil }); err != nil {
		t.Fatal(err)
	}
	want := map[digest.Digest][]catalog.Use{"sha256:1": {{Container: "aa11", Running: true}}, "sha256:2": {{Container: "aa22"}}}
	if got := s.Users(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	_, _ = s.store.Remove("aa22")
	delete(want, "sha256:2")
	if got := s.Users(); !reflect.DeepEqual(got, want) {
		t.Errorf("after a removal: %+v", got)
	}
}

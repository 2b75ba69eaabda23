// Package recordtest makes containers' records for tests.
package recordtest

import (
	"log/slog"
	"os"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
)

// Store opens the store of a directory.
func Store(t testing.TB, dir string) *record.Store {
	t.Helper()
	s, err := record.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Add makes a container that was created; auto is one that removes itself.
func Add(t testing.TB, s *record.Store, id, name string, auto bool) {
	t.Helper()
	r := &record.Record{Spec: record.Spec{ID: id, Name: name, Created: time.Now(), Config: &wire.Config{}, HostConfig: &wire.HostConfig{AutoRemove: auto}},
		Progress: record.Progress{State: record.Created}}
	if err := s.Reserve(name, id); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.Path(id), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(r); err != nil {
		t.Fatal(err)
	}
}

// Stored is the record itself, for a test to change what was made with it.
func Stored(t testing.TB, s *record.Store, id string) *record.Record {
	t.Helper()
	for _, r := range s.Sorted() {
		if r.ID == id {
			return r
		}
	}
	t.Fatalf("there is no %s", id)
	return nil
}

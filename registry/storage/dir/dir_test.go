package dir

import (
	"testing"

	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/storagetest"
)

func TestContract(t *testing.T) { storagetest.Run(t, maker{}) }

type maker struct{}

func (maker) Open(t *testing.T) storage.Storage { return openAt(t, t.TempDir()) }

func (maker) Reopen(t *testing.T, s storage.Storage) storage.Storage {
	old := s.(*Storage)
	abandon(t, old)
	return openAt(t, old.root)
}

func openAt(t testing.TB, root string) *Storage {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// abandon lets go of the directory as the end of the process does.
func abandon(t testing.TB, s *Storage) {
	t.Helper()
	s.index.abandon()
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.lock.Close(); err != nil {
		t.Fatal(err)
	}
}

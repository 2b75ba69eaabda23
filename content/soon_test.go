package content

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// named sets a name soon, by a process that is killed before it survives power
// loss, and returns the directory.
func named(t *testing.T) (root, name string) {
	t.Helper()
	root, name = t.TempDir(), "example.com/soon:1"
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SetDurable(func() error { return errors.New("killed") }); err != nil {
		t.Fatal(err)
	}
	d, err := s.Put([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	entry := Entry{Name: name, Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 2}}
	if err := s.UpdateSoon(func(ix *Index) (*Index, error) { return ix.With(entry), nil }); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Index().Lookup(name); !ok {
		t.Error("the name is not there at once")
	}
	if err := s.Harden(); err == nil {
		t.Error("it was hardened, and nothing was synced")
	}
	return root, name
}

// again opens the directory as the next process does.
func again(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.SetDurable(s.Sync); err != nil {
		t.Fatal(err)
	}
	return s
}

// Names that are set soon survive the end of the process, and of the boot only
// what was synced does.
func TestSoon(t *testing.T) {
	root, name := named(t)
	s := again(t, root)
	if _, ok := s.Index().Lookup(name); !ok {
		t.Error("the name was lost with its process")
	}
	if ix, err := readIndex(filepath.Join(root, "index.json")); err != nil {
		t.Error(err)
	} else if _, ok := ix.Lookup(name); !ok {
		t.Error("the next process did not see to it that the name survives power loss")
	}
	if _, err := os.Stat(filepath.Join(root, soonFile)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}

	root, name = named(t)
	file := filepath.Join(root, soonFile)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Replace(data, []byte(`"Boot":"`), []byte(`"Boot":"0`), 1)
	if err := os.WriteFile(file, other, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok := again(t, root).Index().Lookup(name); ok {
		t.Error("a name of another boot is there, and perhaps nothing that it leads to")
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// While names are not durable, who changes others waits until all are.
func TestUpdateAfterSoon(t *testing.T) {
	root, name := named(t)
	s := again(t, root)
	err := s.UpdateSoon(func(ix *Index) (*Index, error) {
		e, _ := ix.Lookup(name)
		e.Name = "example.com/soon:2"
		return ix.With(e), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(func(ix *Index) (*Index, error) {
		e, _ := ix.Lookup(name)
		e.Name = "example.com/now:1"
		return ix.With(e), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ix, err := readIndex(filepath.Join(root, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{name, "example.com/soon:2", "example.com/now:1"} {
		if _, ok := ix.Lookup(n); !ok {
			t.Errorf("%s would not survive power loss", n)
		}
	}
}

// maker makes one blob again, or what it takes for it.
type maker struct {
	d    digest.Digest
	text string
	size int64
}

func (m maker) Size(d digest.Digest) (int64, bool) { return m.size, d == m.d }
func (m maker) Write(_ context.Context, _ digest.Digest, w io.Writer) error {
	_, err := io.WriteString(w, m.text)
	return err
}

// A blob that can be made again counts as here; what is made is checked.
func TestRemake(t *testing.T) {
	d := digest.FromString("made")
	for name, c := range map[string]struct {
		maker
		ok bool
	}{"right": {maker{d, "made", 4}, true}, "others": {maker{d, "mode", 4}, false}, "fewer": {maker{d, "mad", 4}, false}} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			s, err := Open(root)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.SetRemaker(c.maker)
			if size, ok := s.Size(d); !ok || size != 4 {
				t.Error(size, ok)
			}
			f, _, err := s.Open(d)
			if (err == nil) != c.ok {
				t.Fatal(err)
			}
			if err == nil {
				text, _ := io.ReadAll(f)
				f.Close()
				if string(text) != "made" {
					t.Errorf("%q", text)
				}
			}
			if left, err := os.ReadDir(filepath.Join(root, "ingest")); err != nil || len(left) > 0 {
				t.Error(left, err)
			}
			if _, _, err := s.Open(digest.FromString("other")); err == nil {
				t.Error("another blob is here")
			}
		})
	}
}

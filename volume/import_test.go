package volume

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// A client that sends half of an archive holds up nobody else who means the name.
func TestImportThatHangs(t *testing.T) {
	testutil.RequireRoot(t)
	s := open(t, t.TempDir())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := s.Import(t.Context(), ImportRequest{Name: "slow"}, out)
		ended <- err
	}()
	if _, err := in.Write(make([]byte, 10)); err != nil { // it reads
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Remove(ctx, "slow", false); !errors.Is(err, fault.NotFound) {
		t.Errorf("remove: %v", err)
	}
	if _, err := s.Create(ctx, CreateRequest{Name: "slow"}); err != nil {
		t.Errorf("create: %v", err)
	}
	if _, err := in.Write(make([]byte, 1014)); err != nil { // the end of an archive
		t.Fatal(err)
	}
	in.Close()
	if err := <-ended; !errors.Is(err, fault.Conflict) {
		t.Errorf("import: %v", err)
	}
	if list, _, err := s.List(ctx, nil); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
}

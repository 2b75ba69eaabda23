package container

import (
	"context"
	"errors"
	"testing"

	wire "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/snapshot"
)

type unpackedImages struct{ Images }

func (unpackedImages) UnpackManifest(context.Context, ocispec.Descriptor) (digest.Digest, error) {
	return "", nil
}

// Power loss may leave the record of a container and not its directories.
func TestRootLostBeforeTheFirstStart(t *testing.T) {
	testutil.RequireRoot(t)
	layers, err := snapshot.Open(t.TempDir(), snapshot.Overlay)
	if err != nil {
		t.Fatal(err)
	}
	defer layers.Close()
	s := &Service{cfg: Config{Images: unpackedImages{}, Snapshots: layers, Defaults: create.NewDefaults(create.Settings{})}}
	r := &Record{Spec: record.Spec{ID: "c", HostConfig: &wire.HostConfig{}}, Progress: record.Progress{State: record.Created}}
	root, err := s.rootOf(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.rootOf(context.Background(), r); err != nil || again.Upper != root.Upper {
		t.Error(again, err)
	}
	r = &Record{Spec: record.Spec{ID: "d"}, Progress: record.Progress{State: record.Exited}}
	if _, err := s.rootOf(context.Background(), r); !errors.Is(err, fault.NotFound) {
		t.Errorf("what a container wrote is lost, and it starts: %v", err)
	}
}

package container

import (
	"context"
	"errors"
	"strings"
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

// What a runtime refused has the words by which clients know that it did.
func TestStartFailures(t *testing.T) {
	for text, want := range map[string]int{
		"mount tmpfs at /x: invalid argument":                      128,
		"set sysctl net.core.somaxconn to x: invalid argument":     128,
		"set sysctl net.ipv4.nope to 1: no such file or directory": 127,
		`exec: "x": executable file not found in $PATH`:            127,
		`exec: "/etc": is a directory`:                             126,
	} {
		code, err := startFailure(errors.New(text))
		if code != want || !strings.HasPrefix(err.Error(), notCreated) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %d, %v", text, code, err)
		}
	}
}

package output

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
)

// shelf is a store that has what it was given.
type shelf struct {
	build.Store
	blobs map[digest.Digest][]byte
	calls []string
}

func (s *shelf) PutBlob(_ context.Context, d ocispec.Descriptor, r io.Reader) error {
	text, err := io.ReadAll(r)
	s.blobs[d.Digest], s.calls = text, append(s.calls, "put")
	return err
}

func (s *shelf) Publish(_ context.Context, target ocispec.Descriptor, _ []string, texts [][]byte) (string, error) {
	for _, text := range texts {
		s.blobs[digest.FromBytes(text)] = text
	}
	s.calls = append(s.calls, "publish")
	return target.Digest.String(), nil
}

// What is small goes with the image's name, in one message, and what is not goes before;
// all is there in the end.
func TestTextsGoWithTheName(t *testing.T) {
	for calls, label := range map[string]string{"publish": "small", "put publish": strings.Repeat("large", maxText/4)} {
		s := &shelf{blobs: map[digest.Digest][]byte{}}
		config, err := json.Marshal(ocispec.Image{Platform: OwnPlatform(), Config: ocispec.ImageConfig{Labels: map[string]string{"is": label}}})
		if err != nil {
			t.Fatal(err)
		}
		id, err := Publish(t.Context(), s, []Made{{Platform: OwnPlatform(), Config: config}}, []string{"docker.io/library/a:latest"}, time.Time{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(s.calls, " "); got != calls {
			t.Errorf("the store was called with %q, want %q", got, calls)
		}
		var manifest ocispec.Manifest
		var image ocispec.Image
		if err := json.Unmarshal(s.blobs[digest.Digest(id)], &manifest); err != nil {
			t.Fatalf("of the manifest came %q: %v", s.blobs[digest.Digest(id)], err)
		}
		if err := json.Unmarshal(s.blobs[manifest.Config.Digest], &image); err != nil || image.Config.Labels["is"] != label {
			t.Errorf("of the config came %.60q: %v", s.blobs[manifest.Config.Digest], err)
		}
	}
}

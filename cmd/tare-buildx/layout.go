package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutScheme begins a context that is an image in a directory of the OCI's layout:
// oci-layout://DIRECTORY[:TAG][@DIGEST].
const layoutScheme = "oci-layout://"

// lendLayout lends the directory's blobs, and returns what the context is called.
func lendLayout(o *client.SolveOpt, place string) (string, error) {
	place, want, pinned := strings.Cut(place, "@")
	dir, tag, tagged := strings.Cut(place, ":")
	if !tagged {
		tag = "latest"
	}
	d := digest.Digest(want)
	var err error
	if pinned {
		err = d.Validate()
	} else {
		d, err = imageIn(dir, tag)
	}
	if err != nil {
		return "", fmt.Errorf("failed to get build context %s%s: %w", layoutScheme, place, err)
	}
	store, err := local.NewStore(dir)
	if err != nil {
		return "", err
	}
	if o.OCIStores == nil {
		o.OCIStores = map[string]content.Store{}
	}
	name := identity.NewID()
	o.OCIStores[name] = store
	return layoutScheme + name + ":" + tag + "@" + d.String(), nil
}

// imageIn finds an image by its tag, or the only one for "latest".
func imageIn(dir, tag string) (digest.Digest, error) {
	text, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return "", err
	}
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return "", fmt.Errorf("%s is no index of images: %w", ocispec.ImageIndexFile, err)
	}
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == tag {
			return m.Digest, m.Digest.Validate()
		}
	}
	if tag == "latest" && len(index.Manifests) == 1 {
		return index.Manifests[0].Digest, index.Manifests[0].Digest.Validate()
	}
	return "", fmt.Errorf("the directory has no image %s: say which one by :TAG or @DIGEST", tag)
}

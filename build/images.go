package build

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

// image is the tree of an image, of which only is known what it is: its layers are
// fetched when something needs them.
func (j *Job) image(ctx context.Context, v *vertex, ref string, attrs map[string]string) (*output, error) {
	r := ImageRequest{Ref: ref, Platform: v.platform()}
	if attrs[pb.AttrImageResolveMode] == pb.AttrImageResolveModeForcePull {
		r.Pull = !pinned(ref)
	}
	img, err := j.Resolve(ctx, v.digest, r)
	if err != nil {
		return nil, err
	}
	if want := attrs[pb.AttrImageChecksum]; want != "" && want != img.Target.String() && want != img.Manifest.Digest.String() {
		return nil, fault.New(fault.Invalid, "image digest %s for %s does not match expected checksum %s", img.Target, ref, want)
	}
	r.Ref = img.Ref
	if !pinned(img.Ref) {
		r.Target = img.Target
	}
	var fetched succeeding
	all := func(ctx context.Context, _ Layer) error {
		return fetched.do(func() error {
			r, err := j.request(ctx, r)
			if err != nil {
				return err
			}
			return j.solver.Store.Fetch(ctx, r, img, func(t Transfer) { j.transfer(v.digest, t) })
		})
	}
	return j.tree(img, attrs[pb.AttrImageLayerLimit], all)
}

// tree is the output of an image, of which limit may say how many layers count.
func (j *Job) tree(img Image, limit string, from origin) (*output, error) {
	layers := img.Layers
	if limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 0 {
			return nil, fault.New(fault.Invalid, "%q is no number of layers", limit)
		}
		layers = layers[:min(n, len(layers))]
	}
	j.offer(layers, from)
	return &output{layers: layers, key: img.Manifest.Digest, facts: map[string]string{factDigest: img.Target.String()}}, nil
}

// pinned tells whether a name says the digest.
func pinned(ref string) bool {
	_, name, found := strings.Cut(ref, "@")
	return found && digest.Digest(name).Validate() == nil
}

// request completes a request with what the client has for the registry.
func (j *Job) request(ctx context.Context, r ImageRequest) (ImageRequest, error) {
	host, _, _ := strings.Cut(r.Ref, "/")
	var err error
	r.Auth, err = j.session.Credentials(ctx, host)
	return r, err
}

// Request asks for a name with what the client has for its registry.
func (j *Job) Request(ctx context.Context, ref string) (ImageRequest, error) {
	return j.request(ctx, ImageRequest{Ref: ref})
}

// Resolve finds what an image's name means, for a vertex or for the front end
// alone. What was asked for by a name is, in this build, known by its digest: then
// the image has that name.
func (j *Job) Resolve(ctx context.Context, vertex digest.Digest, r ImageRequest) (Image, error) {
	j.mu.Lock()
	img, known := j.resolved[resolvedAs(r)]
	j.mu.Unlock()
	if known {
		return img, nil
	}
	r, err := j.request(ctx, r)
	if err != nil {
		return Image{}, err
	}
	if img, err = j.solver.Store.Resolve(ctx, r, func(t Transfer) { j.transfer(vertex, t) }); err != nil {
		return img, err
	}
	img.Ref = r.Ref
	if !pinned(r.Ref) {
		r.Ref += "@" + img.Target.String()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.resolved[resolvedAs(r)] = img
	return img, nil
}

func resolvedAs(r ImageRequest) string {
	return r.Ref + " " + r.Platform.OS + "/" + r.Platform.Architecture + "/" + r.Platform.Variant
}

// layout is the tree of an image in one of the client's stores.
func (j *Job) layout(ctx context.Context, v *vertex, ref string, attrs map[string]string) (*output, error) {
	_, d, _ := strings.Cut(ref, "@")
	store := attrs[pb.AttrOCILayoutStoreID]
	img, err := j.ResolveLayout(ctx, store, digest.Digest(d), v.platform())
	if err != nil {
		return nil, err
	}
	well := &lentWell{job: j, store: layoutStore(store)}
	return j.tree(img, attrs[pb.AttrOCILayoutLayerLimit], func(ctx context.Context, l Layer) error { return well.keep(ctx, l.Blob) })
}

// layoutStore is how clients know such a store.
func layoutStore(id string) string { return "oci:" + id }

// The bounds of an image in a client's store, in bytes and counts.
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	maxNested   = 8
	maxStack    = 500
)

// ResolveLayout reads what an image of one of the client's stores is.
func (j *Job) ResolveLayout(ctx context.Context, store string, d digest.Digest, p ocispec.Platform) (Image, error) {
	img := Image{Ref: store, Target: d, Manifest: ocispec.Descriptor{Digest: d}}
	well := &lentWell{job: j, store: layoutStore(store)}
	for range maxNested {
		if err := img.Manifest.Digest.Validate(); err != nil {
			return img, fault.New(fault.Invalid, "the oci-layout %s has no image %q: %w", store, img.Manifest.Digest, err)
		}
		data, err := well.Document(ctx, img.Manifest, maxManifest)
		if err != nil {
			return img, err
		}
		var doc struct {
			ocispec.Manifest
			Manifests []ocispec.Descriptor `json:"manifests"`
		}
		if err := json.Unmarshal(data, &doc); err != nil {
			return img, fault.New(fault.Invalid, "the oci-layout %s is damaged: %w", store, err)
		}
		if len(doc.Manifests) == 0 {
			if img.Config, err = well.Document(ctx, doc.Config, maxConfig); err != nil {
				return img, err
			}
			img.Layers, err = stacked(img.Config, doc.Layers)
			return img, err
		}
		next := choose(doc.Manifests, p)
		if next == nil {
			return img, fault.New(fault.NotFound, "the oci-layout %s has no image for %s/%s", store, p.OS, p.Architecture)
		}
		img.Manifest = *next
	}
	return img, fault.New(fault.Invalid, "the indexes of the oci-layout %s are nested too deep", store)
}

// choose finds the manifest of a platform, or the only one.
func choose(list []ocispec.Descriptor, p ocispec.Platform) (found *ocispec.Descriptor) {
	for i := range list {
		m := &list[i]
		switch {
		case m.Annotations["vnd.docker.reference.type"] != "":
		case m.Platform == nil:
			if len(list) == 1 {
				return m
			}
		case m.Platform.OS != p.OS || m.Platform.Architecture != p.Architecture:
		case m.Platform.Variant == p.Variant:
			return m
		case found == nil && (p.Variant == "" || m.Platform.Variant == ""):
			found = m
		}
	}
	return found
}

// stacked are the layers that a manifest lists, as its config says.
func stacked(config []byte, blobs []ocispec.Descriptor) ([]Layer, error) {
	var c struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fault.New(fault.Invalid, "the config of an image cannot be read: %w", err)
	}
	if len(c.RootFS.DiffIDs) != len(blobs) || len(blobs) > maxStack {
		return nil, fault.New(fault.Invalid, "the manifest of an image has %d layers, and its config %d: they must be the same, and at most %d", len(blobs), len(c.RootFS.DiffIDs), maxStack)
	}
	var layers []Layer
	below := digest.Digest("")
	for i, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return nil, fault.New(fault.Invalid, "%q is no digest of a layer: %w", d, err)
		}
		if err := blobs[i].Digest.Validate(); err != nil {
			return nil, fault.New(fault.Invalid, "%q is no digest of a layer: %w", blobs[i].Digest, err)
		}
		below = snapshot.ChainID(below, d)
		blob := ocispec.Descriptor{MediaType: blobs[i].MediaType, Digest: blobs[i].Digest, Size: blobs[i].Size}
		layers = append(layers, Layer{Chain: below, DiffID: d, Blob: blob})
	}
	return layers, nil
}

package remote

import (
	"context"
	_ "crypto/sha256" // the algorithms that go-digest may meet
	_ "crypto/sha512"
	"encoding/json"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/remote/hosts"
)

// maxManifest is what the distribution specification wants registries to take.
const maxManifest = 4 << 20

// accepted are the types that are asked for by name; the rest is taken as it
// comes.
var accepted = []string{strings.Join([]string{
	ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, content.DockerManifestList, content.DockerManifest, "*/*;q=0.1",
}, ", ")}

// Resolve finds what a tag points to, or whether a digest exists. It does not
// read the manifest if the registry tells all of it in a header; the digest of
// a tag is the registry's word then. A mirror has to show the manifest of a tag:
// nothing else can tell that it is wrong before the registry is past being asked.
func (r *Repository) Resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	if err := checkReference(tagOrDigest); err != nil {
		return d, err
	}
	byDigest := strings.Contains(tagOrDigest, ":")
	err := r.each(ctx, reading(tagOrDigest), func(s *session, path string, last bool) (err error) {
		if !last && !byDigest {
			d, _, err = s.manifest(ctx, path, tagOrDigest, last)
			return err
		}
		resp, err := s.do(ctx, &call{
			method: http.MethodHead, below: path + "/manifests/" + tagOrDigest, header: http.Header{"Accept": accepted},
			scope: pullScope(path), once: !last, want: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed},
		})
		if err != nil {
			return err
		}
		discard(resp)
		if resp.StatusCode/100 == 2 {
			var ok bool
			if d, ok = headDescriptor(resp, tagOrDigest); ok {
				return nil
			}
		}
		d, _, err = s.manifest(ctx, path, tagOrDigest, last) // which also has the text of a refusal
		return err
	})
	return d, err
}

// headDescriptor makes a descriptor of headers, if they tell enough.
func headDescriptor(resp *http.Response, tagOrDigest string) (ocispec.Descriptor, bool) {
	d := ocispec.Descriptor{Digest: digest.Digest(resp.Header.Get("Docker-Content-Digest")), Size: resp.ContentLength}
	d.MediaType, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	byDigest := strings.Contains(tagOrDigest, ":")
	if d.Digest.Validate() != nil || byDigest && d.Digest != digest.Digest(tagOrDigest) || d.Size <= 0 {
		return d, false
	}
	return d, content.IsNode(d.MediaType)
}

// reading is the capability that reading a manifest needs.
func reading(tagOrDigest string) hosts.Capability {
	if strings.Contains(tagOrDigest, ":") {
		return hosts.Pull
	}
	return hosts.Pull | hosts.Resolve
}

// Manifest reads a manifest or an index of at most 4 MiB. Its digest is that
// which was asked for or, for a tag, the one that the registry names or the
// SHA-256. The media type is the one that the body and the registry agree on.
func (r *Repository) Manifest(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, []byte, error) {
	var d ocispec.Descriptor
	var data []byte
	if err := checkReference(tagOrDigest); err != nil {
		return d, nil, err
	}
	err := r.each(ctx, reading(tagOrDigest), func(s *session, path string, last bool) error {
		var err error
		d, data, err = s.manifest(ctx, path, tagOrDigest, last)
		return err
	})
	return d, data, err
}

func (s *session) manifest(ctx context.Context, path, tagOrDigest string, last bool) (ocispec.Descriptor, []byte, error) {
	resp, data, err := s.document(ctx, &call{
		method: http.MethodGet, below: path + "/manifests/" + tagOrDigest, header: http.Header{"Accept": accepted},
		scope: pullScope(path), once: !last,
	}, maxManifest)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	d, err := describe(tagOrDigest, resp.Header, data)
	return d, data, err
}

// describe checks a manifest against what was asked for and against what the
// registry says of it.
func describe(tagOrDigest string, h http.Header, data []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	want := digest.Digest(h.Get("Docker-Content-Digest"))
	if strings.Contains(tagOrDigest, ":") {
		want = digest.Digest(tagOrDigest)
	}
	if want != "" && want.Validate() == nil {
		d.Digest = want.Algorithm().FromBytes(data)
		if d.Digest != want {
			return d, fault.New(fault.Invalid, "the manifest of %s that the registry sent is another: its digest is %s", want, d.Digest)
		}
	}
	var err error
	d.MediaType, err = mediaTypeOf(h.Get("Content-Type"), data)
	return d, err
}

// mediaTypeOf is the type that header and body agree on. A document that could
// be read as two kinds, or whose types differ, is refused: what is checked as
// one thing must not be used as another.
func mediaTypeOf(header string, data []byte) (string, error) {
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", fault.New(fault.Invalid, "the registry sent a manifest that is no JSON object: %w", err)
	}
	said, _, _ := mime.ParseMediaType(header)
	switch said {
	case "application/json", "application/octet-stream", "text/plain", "text/html", "binary/octet-stream":
		said = "" // a file server's guess
	}
	list, single := doc.Manifests != nil, doc.Layers != nil || doc.Config != nil
	switch {
	case doc.SchemaVersion == 1 || doc.FSLayers != nil || strings.HasPrefix(said, "application/vnd.docker.distribution.manifest.v1"):
		return "", fault.New(fault.NotImplemented, "the image is of Docker's schema 1, which is no longer supported: its author should push it anew, as a Docker schema 2 or an OCI image")
	case list && single:
		return "", fault.New(fault.Invalid, "the registry sent a manifest that claims to be an index too")
	case said != "" && doc.MediaType != "" && said != doc.MediaType:
		return "", fault.New(fault.Invalid, "the registry calls a manifest %s that calls itself %s", clean(said, 200), clean(doc.MediaType, 200))
	case said == "":
		said = doc.MediaType
	}
	switch {
	case said == "" && list:
		said = ocispec.MediaTypeImageIndex
	case said == "" && single:
		said = ocispec.MediaTypeImageManifest
	case said == "":
		return "", fault.New(fault.Invalid, "the registry sent a manifest without a type")
	case content.IsNode(said) && (list || single) && content.IsIndex(said) != list:
		return "", fault.New(fault.Invalid, "the registry sent a manifest that is not of its type %s", said)
	}
	return said, nil
}

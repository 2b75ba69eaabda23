package registry

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/manifest"
	"github.com/tarehq/tare/registry/storage"
)

// accepts tells whether a client takes the media type. Preferences are not
// weighed: a manifest has one form. Who asks for JSON knows what to do with it.
func accepts(accept []string, mediaType string) bool {
	for _, line := range accept {
		for entry := range strings.SplitSeq(line, ",") {
			entry, _, _ = strings.Cut(entry, ";")
			switch entry = strings.TrimSpace(entry); {
			case strings.EqualFold(entry, mediaType), entry == "*/*", entry == "application/*", entry == "application/json":
				return true
			}
		}
	}
	return strings.Join(accept, "") == ""
}

// instead finds what to send to a client that does not take the manifest's
// type: by tag, in place of a list the image of the platform that clients
// without lists were made for. The others are told what is the matter: older
// clients of Docker would report a broken signature otherwise.
func (q *request) instead(m *storage.Manifest, accept []string, byTag bool) (*storage.Manifest, error) {
	if byTag && manifest.IsList(m.Descriptor.MediaType) {
		var list ocispec.Index
		if err := json.Unmarshal(m.Data, &list); err != nil {
			return nil, err
		}
		for _, entry := range list.Manifests {
			p := entry.Platform
			if p == nil || p.OS != "linux" || p.Architecture != "amd64" || !accepts(accept, entry.MediaType) {
				continue
			}
			image, err := q.api.Storage.Manifest(q.Context(), q.repo, entry.Digest)
			if !errors.Is(err, fault.NotFound) {
				return image, err
			}
		}
	}
	return nil, refuse(http.StatusNotFound, manifestUnknown, fault.New(fault.NotFound,
		"the manifest is of type %s, which the client's Accept header leaves out: use a newer client", m.Descriptor.MediaType))
}

package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/remote/hosts"
)

// target chooses the endpoint that this repository is pushed to: the first that
// may be and answers. Everything goes there from then on, since a manifest is
// of use only beside its blobs.
func (r *Repository) target(ctx context.Context) (*session, string, error) {
	r.mu.Lock()
	s := r.pushing
	r.mu.Unlock()
	if s == nil {
		err := r.each(ctx, hosts.Push, func(candidate *session, _ string, last bool) error {
			if !last {
				if _, err := candidate.endpoint.known(ctx); err != nil {
					return err
				}
			}
			s = candidate
			return nil
		})
		if err != nil {
			return nil, "", err
		}
		r.mu.Lock()
		if r.pushing == nil {
			r.pushing = s
		}
		s = r.pushing
		r.mu.Unlock()
	}
	return s, s.endpoint.repository(r.path), nil
}

// HasBlob tells whether a push of the blob can be left out.
func (r *Repository) HasBlob(ctx context.Context, d digest.Digest) (bool, error) {
	s, path, err := r.target(ctx)
	if err != nil {
		return false, err
	}
	if err := d.Validate(); err != nil {
		return false, fault.New(fault.Invalid, "%q is no digest", clean(d.String(), 200))
	}
	resp, err := s.do(ctx, &call{method: http.MethodHead, below: path + "/blobs/" + d.String(), scope: pushScope(path), want: []int{http.StatusNotFound}})
	if err != nil {
		return false, err
	}
	discard(resp)
	return resp.StatusCode == http.StatusOK, nil
}

// Mount asks the registry to take the blob from another of its repositories.
// Where it opens an upload instead the answer is false, and PushBlob of the
// same digest goes on with that upload.
func (r *Repository) Mount(ctx context.Context, d digest.Digest, fromPath string) (bool, error) {
	s, path, err := r.target(ctx)
	if err != nil {
		return false, err
	}
	if err := d.Validate(); err != nil {
		return false, fault.New(fault.Invalid, "%q is no digest", clean(d.String(), 200))
	}
	from := s.endpoint.repository(fromPath)
	resp, err := s.do(ctx, &call{
		method: http.MethodPost, below: path + "/blobs/uploads/", scope: pushScope(path, from),
		query: url.Values{"mount": {d.String()}, "from": {from}},
	})
	if status := statusIn(err); status >= 400 && status < 500 && !isTransient(err) {
		return false, nil // it does not mount; whether it takes the blob, the upload will tell
	}
	if err != nil {
		return false, err
	}
	defer discard(resp)
	switch resp.StatusCode {
	case http.StatusCreated:
		return true, nil
	case http.StatusAccepted:
		if at, err := uploadLocation(resp); err == nil {
			r.keep(d, at)
		}
		return false, nil
	}
	return false, fault.New(fault.Unavailable, "%s answers a mount with the status %d", s.endpoint.host, resp.StatusCode)
}

// keep remembers an upload that a mount has opened.
func (r *Repository) keep(d digest.Digest, at *url.URL) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		r.kept = map[digest.Digest]*url.URL{}
	}
	r.kept[d] = at
}

func (r *Repository) takeKept(d digest.Digest) *url.URL {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.kept[d]
	delete(r.kept, d)
	return at
}

// PushManifest stores a manifest or index under a tag or its digest. When it
// has a subject and the registry does not keep referrers by itself, the index
// at the subject's referrers tag is changed too.
func (r *Repository) PushManifest(ctx context.Context, d ocispec.Descriptor, data []byte, tagOrDigest string) error {
	if err := checkReference(tagOrDigest); err != nil {
		return err
	}
	if d.Digest.Validate() != nil || d.Digest.Algorithm().FromBytes(data) != d.Digest || d.Size != int64(len(data)) {
		return fault.New(fault.Invalid, "the manifest to push is not what its descriptor %s says", clean(d.Digest.String(), 200))
	}
	s, path, err := r.target(ctx)
	if err != nil {
		return err
	}
	resp, err := s.putManifest(ctx, path, d, data, tagOrDigest)
	if err != nil {
		return err
	}
	var doc struct {
		Subject      *ocispec.Descriptor `json:"subject"`
		ArtifactType string              `json:"artifactType"`
		Config       ocispec.Descriptor  `json:"config"`
		Annotations  map[string]string   `json:"annotations"`
	}
	if json.Unmarshal(data, &doc) != nil || doc.Subject == nil || resp.Header.Get("OCI-Subject") != "" {
		return nil
	}
	if doc.Subject.Digest.Validate() != nil {
		return fault.New(fault.Invalid, "the subject of the manifest %s is no digest", d.Digest)
	}
	entry := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: doc.ArtifactType, Annotations: doc.Annotations}
	if entry.ArtifactType == "" && !content.IsIndex(d.MediaType) {
		entry.ArtifactType = doc.Config.MediaType
	}
	return s.addReferrer(ctx, path, doc.Subject.Digest, entry)
}

func (s *session) putManifest(ctx context.Context, path string, d ocispec.Descriptor, data []byte, tagOrDigest string) (*http.Response, error) {
	resp, err := s.do(ctx, &call{
		method: http.MethodPut, below: path + "/manifests/" + tagOrDigest, scope: pushScope(path), slow: true,
		header: http.Header{"Content-Type": {d.MediaType}}, length: d.Size,
		body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	})
	if err != nil {
		return nil, err
	}
	discard(resp)
	return resp, sameDigest(resp, d.Digest)
}

// sameDigest checks the digest under which a registry says to have stored
// something, if it says one.
func sameDigest(resp *http.Response, d digest.Digest) error {
	stored := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if stored == "" || stored == d || stored.Validate() != nil || stored.Algorithm() != d.Algorithm() {
		return nil
	}
	return fault.New(fault.Unavailable, "the registry says to have stored %s as %s", d, stored)
}

// addReferrer adds an entry to the index at a referrers tag. Two clients that
// do this at once can lose one entry: the protocol has no lock. Those of this
// process take turns.
func (s *session) addReferrer(ctx context.Context, path string, subject digest.Digest, entry ocispec.Descriptor) error {
	unlock, err := s.endpoint.client.indexes.Lock(ctx, s.endpoint.host+"/"+path+"@"+subject.String())
	if err != nil {
		return err
	}
	defer unlock()
	index, err := s.referrersTag(ctx, path, subject, true)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(index.Manifests, func(m ocispec.Descriptor) bool { return m.Digest == entry.Digest }) {
		return nil
	}
	index.Versioned, index.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageIndex
	index.Manifests = append(index.Manifests, entry)
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	d := ocispec.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	_, err = s.putManifest(ctx, path, d, data, fallbackTag(subject))
	return err
}

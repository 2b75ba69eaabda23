package dir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
)

// maxManifest is how many bytes of a manifest are read.
const maxManifest = 4 << 20

// document is what is read of a manifest or an index.
type document struct {
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations"`
}

// parse reads a manifest that another program has stored. What is neither a
// manifest nor an index names nothing.
func (s *Storage) parse(d ocispec.Descriptor) (record, error) {
	size, err := s.sizeOf(d.Digest)
	if err != nil {
		return record{}, err
	}
	rec := record{Descriptor: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: size}, Updated: time.Now()}
	if !content.IsNode(d.MediaType) {
		return rec, nil
	}
	doc, err := readDocument(s.blobPath(d.Digest), d.Digest)
	if err != nil {
		return rec, fault.New(fault.Invalid, "manifest %s is damaged: push or pull the image again where it is whole, or remove its name (%w)", d.Digest, err)
	}
	rec.Descriptor.ArtifactType, rec.Descriptor.Annotations = doc.ArtifactType, doc.Annotations
	if doc.Subject != nil {
		rec.Subject = doc.Subject.Digest
	}
	if content.IsIndex(d.MediaType) {
		rec.Manifests = doc.Manifests
	} else {
		if doc.Config != nil {
			rec.Blobs = append(rec.Blobs, *doc.Config)
			if rec.Descriptor.ArtifactType == "" && rec.Subject != "" {
				rec.Descriptor.ArtifactType = doc.Config.MediaType
			}
		}
		for _, l := range doc.Layers {
			if !undistributable(l.MediaType) || !s.isLost(l.Digest) {
				rec.Blobs = append(rec.Blobs, l)
			}
		}
	}
	return rec.trim(), nil
}

func (s *Storage) sizeOf(d digest.Digest) (int64, error) {
	st, err := os.Stat(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, incomplete(d)
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// undistributable tells whether layers of the type are fetched from elsewhere.
func undistributable(mediaType string) bool {
	return strings.Contains(mediaType, ".nondistributable.") || strings.Contains(mediaType, ".foreign.")
}

func readDocument(path string, d digest.Digest) (doc document, err error) {
	f, err := os.Open(path)
	if err != nil {
		return doc, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return doc, err
	}
	if len(data) > maxManifest {
		return doc, fmt.Errorf("it has more than %d bytes", maxManifest)
	}
	if got := d.Algorithm().FromBytes(data); got != d {
		return doc, fmt.Errorf("it has the digest %s", got)
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return doc, err
	}
	all := append(doc.Layers[:len(doc.Layers):len(doc.Layers)], doc.Manifests...)
	for _, one := range []*ocispec.Descriptor{doc.Config, doc.Subject} {
		if one != nil {
			all = append(all, *one)
		}
	}
	for _, c := range all {
		if err := c.Digest.Validate(); err != nil {
			return doc, fmt.Errorf("it names %q, which is no digest", c.Digest)
		}
	}
	return doc, nil
}

package manifest

import (
	"encoding/base64"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// document is what was found in a manifest of any kind.
type document struct {
	has          map[string]bool // the members that this package knows
	mediaType    string
	artifactType string
	config       ocispec.Descriptor
	layers       []ocispec.Descriptor
	manifests    []ocispec.Descriptor
	subject      ocispec.Descriptor
	annotations  map[string]string
}

// The members that some reader looks for, by the object they stand in.
var (
	documentMembers = []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests",
		"subject", "annotations", "fsLayers"}
	descriptorMembers = []string{"mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"}
	platformMembers   = []string{"architecture", "os", "os.version", "os.features", "variant", "features"}
)

func decode(data []byte) (*document, error) {
	s, err := scan(data)
	if err != nil {
		return nil, err
	}
	d := &document{has: make(map[string]bool)}
	err = s.object("the manifest", documentMembers, func(name string) (err error) {
		d.has[name] = true
		switch name {
		case "schemaVersion":
			var version int64
			if version, err = s.integer(name); err == nil && version != 2 {
				return fault.New(fault.Invalid, "schemaVersion is %d: push a manifest of version 2", version)
			}
		case "mediaType":
			d.mediaType, err = s.text(name)
		case "artifactType":
			d.artifactType, err = s.text(name)
		case "config":
			d.config, err = s.descriptor(name)
		case "layers":
			d.layers, err = s.descriptors(name)
		case "manifests":
			d.manifests, err = s.descriptors(name)
		case "subject":
			if !s.null() {
				d.subject, err = s.descriptor(name)
			}
		case "annotations":
			d.annotations, err = s.texts(name)
		default:
			err = s.skip()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (s *scanner) descriptors(name string) (list []ocispec.Descriptor, err error) {
	err = s.array(name, func(i int) error {
		d, err := s.descriptor(name + "[" + strconv.Itoa(i) + "]")
		list = append(list, d)
		return err
	})
	return list, err
}

func (s *scanner) descriptor(where string) (d ocispec.Descriptor, err error) {
	sized := false
	err = s.object(where, descriptorMembers, func(name string) (err error) {
		at := where + "." + name
		switch name {
		case "mediaType":
			d.MediaType, err = s.text(at)
		case "artifactType":
			d.ArtifactType, err = s.text(at)
		case "digest":
			var text string
			text, err = s.text(at)
			d.Digest = digest.Digest(text)
		case "size":
			sized = true
			d.Size, err = s.integer(at)
		case "urls":
			err = s.array(at, func(int) error {
				url, err := s.text(at)
				d.URLs = append(d.URLs, url)
				return err
			})
		case "annotations":
			d.Annotations, err = s.texts(at)
		case "data":
			d.Data, err = s.bytes(at)
		case "platform":
			d.Platform, err = s.platform(at)
		default:
			err = s.skip()
		}
		return err
	})
	switch {
	case err != nil:
		return d, err
	case d.MediaType == "":
		return d, fault.New(fault.Invalid, "%s lacks a mediaType", where)
	case !storage.ValidDigest(d.Digest):
		return d, fault.New(fault.Invalid, "%s has the digest %.200q: use sha256 or sha512, in small letters", where, string(d.Digest))
	case !sized || d.Size < 0 || d.Size > 1<<53-1:
		return d, fault.New(fault.Invalid, "%s lacks the size in bytes", where)
	case d.Data != nil && (int64(len(d.Data)) != d.Size || d.Digest.Algorithm().FromBytes(d.Data) != d.Digest):
		return d, fault.New(fault.Invalid, "%s has data that is not what its digest and size say", where)
	}
	return d, nil
}

func (s *scanner) platform(where string) (*ocispec.Platform, error) {
	if s.null() {
		return nil, nil
	}
	p := new(ocispec.Platform)
	err := s.object(where, platformMembers, func(name string) (err error) {
		at := where + "." + name
		switch name {
		case "architecture":
			p.Architecture, err = s.text(at)
		case "os":
			p.OS, err = s.text(at)
		case "os.version":
			p.OSVersion, err = s.text(at)
		case "variant":
			p.Variant, err = s.text(at)
		case "os.features":
			err = s.array(at, func(int) error {
				feature, err := s.text(at)
				p.OSFeatures = append(p.OSFeatures, feature)
				return err
			})
		default:
			err = s.skip()
		}
		return err
	})
	return p, err
}

// bytes reads base64 in the one form that every decoder takes.
func (s *scanner) bytes(where string) ([]byte, error) {
	if s.null() {
		return nil, nil
	}
	text, err := s.text(where)
	if err != nil {
		return nil, err
	}
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(data) != text {
		return nil, fault.New(fault.Invalid, "%s is not base64", where)
	}
	return data, nil
}

package output

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	"github.com/moby/buildkit/util/purl"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
)

// Attestation is something said of a result.
type Attestation struct {
	Path       string // by which its file is called
	Type       string // of the predicate
	Subjects   []result.InTotoSubject
	InlineOnly bool // only in images
	Core       bool // what scanners say of the result itself
	Predicate  func() ([]byte, error)
}

// statement is an in-toto statement, version 1.
type statement struct {
	Type          string          `json:"_type"`
	PredicateType string          `json:"predicateType"`
	Subject       []subject       `json:"subject"`
	Predicate     json.RawMessage `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

const (
	statementType = "https://in-toto.io/Statement/v1"
	statementMIME = "application/vnd.in-toto+json"
	// maxAttestation bounds what a front end or a scanner says, in bytes.
	maxAttestation = 80 << 20
	maxBundle      = 1000 // files
	// Only the builder says how it built.
	provenancePrefix = "https://slsa.dev/provenance/"
)

// attestations reads what a front end returned.
func attestations(ctx context.Context, list []gateway.Attestation) (all []Attestation, err error) {
	for _, a := range list {
		if a.Ref == nil {
			return nil, fault.New(fault.Invalid, "attestation does not have available content")
		}
		made, err := a.Ref.(solvable).Solved(ctx)
		if err != nil {
			return nil, err
		}
		tree, err := made.Open(ctx)
		if err != nil {
			return nil, err
		}
		found, err := read(tree, a)
		if err = errors.Join(err, tree.Close()); err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func read(tree build.Tree, a gateway.Attestation) ([]Attestation, error) {
	meta := func(name string) Attestation {
		inline := string(a.Metadata[result.AttestationInlineOnlyKey]) == "true"
		base, _, _ := strings.Cut(path.Base(name), ".")
		return Attestation{Path: name, Type: a.InToto.PredicateType, Subjects: a.InToto.Subjects, InlineOnly: inline, Core: base != "" && base == string(a.Metadata[result.AttestationSBOMCore])}
	}
	if a.Kind != gatewaypb.AttestationKind_Bundle {
		if a.Path == "" {
			return nil, fault.New(fault.Invalid, "attestation does not have set path")
		}
		text, err := readStatement(tree, a.Path)
		one := meta(a.Path)
		one.Predicate = func() ([]byte, error) { return text, nil }
		if err == nil && strings.HasPrefix(one.Type, provenancePrefix) {
			err = fault.New(fault.Forbidden, "frontend may not set provenance attestations")
		}
		return []Attestation{one}, err
	}
	names, err := bundled(tree, a.Path)
	if err != nil {
		return nil, err
	}
	var all []Attestation
	for _, name := range names {
		text, err := readStatement(tree, path.Join(a.Path, name))
		if err != nil {
			return nil, err
		}
		var s statement
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, fault.New(fault.Invalid, "cannot decode in-toto statement %s: %w", name, err)
		}
		if a.InToto.PredicateType != "" && s.PredicateType != a.InToto.PredicateType {
			return nil, fault.New(fault.Invalid, "bundle entry %s does not match required predicate type %s", s.PredicateType, a.InToto.PredicateType)
		}
		if strings.HasPrefix(s.PredicateType, provenancePrefix) {
			return nil, fault.New(fault.Forbidden, "frontend may not bundle provenance attestations")
		}
		one := meta(path.Join(a.Path, name))
		one.Type, one.Subjects = s.PredicateType, nil
		for _, about := range s.Subject {
			one.Subjects = append(one.Subjects, result.InTotoSubject{Kind: gatewaypb.InTotoSubjectKind_Raw, Name: about.Name, Digest: result.FromDigestMap(about.Digest)})
		}
		one.Predicate = func() ([]byte, error) { return s.Predicate, nil }
		all = append(all, one)
	}
	return all, nil
}

// place opens a path of a tree, inside its root.
func place(tree build.Tree, name string, flags uint64) (*os.File, error) {
	name = strings.TrimPrefix(path.Join("/", name), "/")
	if name == "" {
		name = "."
	}
	fd, err := openat.Open(int(tree.Root().Fd()), name, flags, openat.InRoot)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func bundled(tree build.Tree, dir string) ([]string, error) {
	f, err := place(tree, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxBundle + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) > maxBundle {
		return nil, fault.New(fault.Invalid, "the scanner wrote more than %d files", maxBundle)
	}
	slices.Sort(names)
	return names, nil
}

func readStatement(tree build.Tree, name string) ([]byte, error) {
	f, err := place(tree, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fault.New(fault.Invalid, "the attestation %s is no regular file", name)
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxAttestation+1))
	if err == nil && len(text) > maxAttestation {
		err = fault.New(fault.Invalid, "%s exceeds %d bytes", name, maxAttestation)
	}
	return text, err
}

// ordered has what scanners say of the result itself first.
func ordered(list []Attestation) []Attestation {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Attestation) int {
		switch {
		case a.Core == b.Core:
			return 0
		case a.Core:
			return -1
		}
		return 1
	})
	return list
}

// state makes the statement of an attestation about the subjects, which are the
// result itself.
func (a Attestation) state(self []subject) (*statement, error) {
	predicate, err := a.Predicate()
	if err != nil {
		return nil, err
	}
	s := &statement{Type: statementType, PredicateType: a.Type, Subject: []subject{}, Predicate: predicate}
	about := a.Subjects
	if len(about) == 0 {
		about = []result.InTotoSubject{{Kind: gatewaypb.InTotoSubjectKind_Self}}
	}
	for _, x := range about {
		if x.Kind == gatewaypb.InTotoSubjectKind_Raw {
			s.Subject = append(s.Subject, subject{orElse(x.Name, "_"), result.ToDigestMap(x.Digest...)})
			continue
		}
		for _, own := range self {
			s.Subject = append(s.Subject, own)
			if x.Name != "" && x.Name != "_" {
				s.Subject = append(s.Subject, subject{x.Name, own.Digest})
			}
		}
	}
	return s, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// chosen are the attestations that an output carries.
func chosen(list []Attestation, inline bool) []Attestation {
	return ordered(slices.DeleteFunc(slices.Clone(list), func(a Attestation) bool { return a.InlineOnly && !inline }))
}

// nowhere is the platform of what is no image.
var nowhere = ocispec.Platform{OS: "unknown", Architecture: "unknown"}

// attested stores the manifest of what is said of an image.
func (x *exporter) attested(ctx context.Context, m Made, target ocispec.Descriptor, list []Attestation) (ocispec.Descriptor, error) {
	var self []subject
	for _, name := range x.want.names {
		address, err := purl.RefToPURL("docker", name, &m.Platform)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		self = append(self, subject{address, map[string]string{target.Digest.Algorithm().String(): target.Digest.Encoded()}})
	}
	out := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	config := ocispec.Image{Platform: nowhere, RootFS: ocispec.RootFS{Type: "layers"}}
	for _, a := range list {
		s, err := a.state(self)
		if err == nil && a.Core && a.Type == spdx {
			s.Predicate, err = locate(ctx, m, s.Predicate, x.layers)
		}
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		text, err := json.Marshal(s)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		d, err := x.put(ctx, statementMIME, text)
		if err != nil {
			return d, err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest)
		d.Annotations = map[string]string{"in-toto.io/predicate-type": a.Type}
		out.Layers = append(out.Layers, d)
	}
	var err error
	text, media := []byte("{}"), ocispec.MediaTypeEmptyJSON
	if x.want.artifact {
		out.ArtifactType = "application/vnd.docker.attestation.manifest.v1+json"
		out.Subject = &ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	} else if text, err = json.Marshal(config); err != nil {
		return ocispec.Descriptor{}, err
	} else {
		media = ocispec.MediaTypeImageConfig
	}
	if out.Config, err = x.put(ctx, media, text); err != nil {
		return ocispec.Descriptor{}, err
	}
	if text, err = json.Marshal(out); err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := x.put(ctx, ocispec.MediaTypeImageManifest, text)
	d.Platform = &nowhere
	d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": target.Digest.String()}
	return d, err
}

// statementFile is an attestation as a file beside a result's own.
type statementFile struct {
	name string
	text []byte
}

// statementFiles are those of an output that is no image.
func statementFiles(list []Attestation, prefix, platform string, self []subject) (all []statementFile, err error) {
	for _, a := range chosen(list, false) {
		s, err := a.state(self)
		if err != nil {
			return nil, err
		}
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return nil, err
		}
		name := prefix + path.Base(a.Path)
		if platform != "" {
			ext := path.Ext(name)
			name = fmt.Sprintf("%s.%s%s", strings.TrimSuffix(name, ext), platform, ext)
		}
		if slices.ContainsFunc(all, func(f statementFile) bool { return f.name == name }) {
			return nil, fault.New(fault.Conflict, "duplicate attestation path name %s", name)
		}
		all = append(all, statementFile{name, text})
	}
	return all, nil
}

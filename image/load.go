package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/reference"
)

const (
	maxArchived  = 100_000  // files in one archive of images
	maxIndexFile = 16 << 20 // bytes of index.json and manifest.json
	maxPath      = 4096     // bytes of a file's name
	maxPaths     = 32 << 20 // bytes of the names that a docker-archive's files have
)

// LoadOptions as in POST /images/load.
type LoadOptions struct {
	// Platforms, unless empty, are those to load. Of one the image is its manifest,
	// of several an index of these alone; images without any are passed over.
	Platforms []string
}

// Load takes the images of the tar r into the store: an OCI image layout, a
// docker-archive, or both at once, of which the layout counts. It may be
// compressed with gzip, zstd, bzip2 or xz. All blobs are checked, and an index is
// kept whole with all its platforms and attestations. progress (may be nil)
// gets a line without its newline for each name or nameless image. Nothing is
// left of an archive that fails.
func (s *Service) Load(ctx context.Context, r io.Reader, o LoadOptions, progress func(string)) (err error) {
	done := s.content.Attempt()
	defer func() { done(err) }()
	plain, _, err := compression.Decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	l := loader{s: s, files: map[string]digest.Digest{}, links: map[string]string{}, small: map[string][]byte{}}
	if err := l.read(ctx, plain); err != nil {
		return err
	}
	entries, err := l.entries(ctx)
	if err != nil {
		return err
	}
	if entries, err = l.keepPlatforms(entries, o.Platforms); err != nil {
		return err
	}
	prepared := map[digest.Digest]bool{}
	var parsed int64
	for _, e := range entries {
		if prepared[e.Target.Digest] {
			continue
		}
		prepared[e.Target.Digest] = true
		n, err := l.prepare(ctx, e.Target)
		if err != nil {
			return err
		}
		if parsed += n; parsed > 4*catalog.MaxParsed {
			return fault.New(fault.Invalid, "invalid archive: its images have more than %d bytes of manifests", 4*catalog.MaxParsed)
		}
	}
	if err := s.store(entries); err != nil {
		return err
	}
	if len(l.files)+len(o.Platforms) > 0 {
		s.content.Collect() // what an archive has besides its images
	}
	for _, e := range entries {
		line := "Loaded image ID: " + e.Target.Digest.String()
		if e.Name != "" {
			line = "Loaded image: " + reference.Familiar(e.Name)
		}
		if progress != nil {
			progress(line)
		}
		s.publish("load", e.Target, e.Name)
	}
	return nil
}

// keepPlatforms narrows the images of an archive down to some platforms.
func (l *loader) keepPlatforms(entries []content.Entry, platforms []string) ([]content.Entry, error) {
	if len(platforms) == 0 {
		return entries, nil
	}
	var kept []content.Entry
	missing := ""
	for _, e := range entries {
		var found []string
		for _, p := range platforms {
			if _, err := l.s.Catalog.Choose(e.Target, p, e.Name); errors.Is(err, fault.NotFound) {
				missing = p
			} else if err != nil {
				return nil, err
			} else {
				found = append(found, p)
			}
		}
		if len(found) == 0 {
			continue
		}
		target, only, err := l.s.Catalog.Narrow(e.Target, found, e.Name)
		if err != nil {
			return nil, err
		}
		if e.Target = target; only != nil {
			if e.Target, err = l.indexOf(target, only); err != nil {
				return nil, err
			}
		}
		kept = append(kept, e)
	}
	if len(kept) == 0 {
		return nil, fault.New(fault.NotFound, "requested platform (%s) not found: image might be filtered out", missing)
	}
	return kept, nil
}

// indexOf stores an index of those manifests of another one that count.
func (l *loader) indexOf(target ocispec.Descriptor, only map[digest.Digest]bool) (ocispec.Descriptor, error) {
	n, err := l.s.content.Node(target)
	if err != nil {
		return target, err
	}
	index := *n.Index
	index.MediaType, index.Manifests = target.MediaType, nil
	for _, d := range n.Index.Manifests {
		if only[d.Digest] || content.IsIndex(d.MediaType) {
			index.Manifests = append(index.Manifests, d)
		}
	}
	return l.s.content.PutJSON(target.MediaType, index)
}

// prepare checks that the target can be followed and unpacks what this machine
// would run of it. It tells how many bytes were parsed.
func (l *loader) prepare(ctx context.Context, target ocispec.Descriptor) (parsed int64, err error) {
	if _, ok := l.s.content.Size(target.Digest); !ok {
		return 0, fault.New(fault.Invalid, "invalid archive: %s is not in it", target.Digest)
	}
	members, bytes, over := l.s.Catalog.Survey(target)
	nodes := int64(0)
	err = l.s.content.Walk(target, func(d ocispec.Descriptor, size int64) error {
		if d.Size != size {
			return fault.New(fault.Invalid, "invalid archive: %s has %d bytes and is said to have %d", d.Digest, size, d.Size)
		}
		if content.IsNode(d.MediaType) {
			nodes += size
		}
		if over || nodes > catalog.MaxParsed {
			return fault.New(fault.Invalid, "invalid archive: image %s has more than %d manifests, or more than %d bytes of them", target.Digest, catalog.MaxMembers, catalog.MaxParsed)
		}
		return ctx.Err()
	})
	if err != nil {
		return 0, err
	}
	return max(bytes, nodes), l.prepareMembers(ctx, target, members)
}

func (l *loader) prepareMembers(ctx context.Context, target ocispec.Descriptor, members []catalog.Member) error {
	for _, m := range members {
		if m.Kind != wire.ManifestKindImage {
			continue
		}
		if m.Detail == nil {
			// Of an index some platforms may be left out, but none be wrong.
			if _, err := l.s.Catalog.Detail(m.Desc); err != nil && (errors.Is(err, fault.Invalid) || !content.IsIndex(target.MediaType)) {
				return fmt.Errorf("invalid archive: %w", err)
			}
			continue
		}
		if !m.Available && !content.IsIndex(target.MediaType) {
			return fault.New(fault.Invalid, "invalid archive: a layer of image %s is not in it", target.Digest)
		}
		if m.Available && platform.Matches(platform.Host(), m.Platform) {
			if err := l.s.unpacker.Unpack(ctx, m.Detail.Manifest.Layers, m.Detail.Config.RootFS.DiffIDs); err != nil {
				return err
			}
		}
	}
	return nil
}

// loader reads one archive.
type loader struct {
	s     *Service
	files map[string]digest.Digest // of a docker-archive, stored as blobs
	links map[string]string        // old docker-archives link equal layers
	small map[string][]byte        // index.json, manifest.json, oci-layout
	paths int                      // bytes of all names in files and links
}

func (l *loader) read(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for count := 0; ; count++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if count == 0 && errors.Is(err, io.ErrUnexpectedEOF) { // not even one header
			return fault.New(fault.Invalid, "the stream is not a tar archive")
		}
		if err == nil && count > maxArchived {
			return fault.New(fault.Invalid, "invalid archive: it has more than %d files", maxArchived)
		}
		if err == nil {
			err = l.file(hdr, tr)
		}
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fault.New(fault.Invalid, "the archive is truncated: %w", err)
		case errors.Is(err, tar.ErrHeader):
			return fault.New(fault.Invalid, "the stream is not a valid tar archive: %w", err)
		case err != nil:
			return err
		}
	}
}

func (l *loader) file(hdr *tar.Header, r io.Reader) error {
	if len(hdr.Name) > maxPath || len(hdr.Linkname) > maxPath {
		return fault.New(fault.Invalid, "invalid archive: the name %q… is too long", shortName(hdr.Name))
	}
	name := path.Clean(strings.TrimLeft(hdr.Name, "/"))
	if blobName(name) == "" || hdr.Typeflag != tar.TypeReg {
		if l.paths += len(name) + len(hdr.Linkname); l.paths > maxPaths {
			return fault.New(fault.Invalid, "invalid archive: the names in it have more than %d bytes", maxPaths)
		}
	}
	switch hdr.Typeflag {
	case tar.TypeSymlink:
		l.links[name] = path.Join(path.Dir(name), hdr.Linkname)
		return nil
	case tar.TypeLink:
		l.links[name] = path.Clean(hdr.Linkname)
		return nil
	case tar.TypeReg:
	default:
		return nil
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") { // whose holes would be stored as zeros, terabytes out of nothing
			return fault.New(fault.Invalid, "invalid archive: %s is a sparse file: pack it without --sparse", shortName(name))
		}
	}
	switch name {
	case ocispec.ImageLayoutFile, ocispec.ImageIndexFile, "manifest.json":
		if hdr.Size > maxIndexFile {
			return fault.New(fault.Invalid, "invalid archive: %s has %d bytes, more than %d", name, hdr.Size, maxIndexFile)
		}
		data, err := io.ReadAll(r)
		l.small[name] = data
		return err
	case "repositories":
		return nil
	}
	if d := blobName(name); d != "" {
		_, err := l.s.content.Ingest(r, d, hdr.Size)
		if errors.Is(err, fault.Invalid) {
			return fmt.Errorf("invalid archive: %s: %w", hdr.Name, err)
		}
		return err
	}
	w, err := l.s.content.Create(digest.SHA256)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, 1<<20)); err != nil {
		return err
	}
	l.files[name], err = w.Commit("", hdr.Size)
	return err
}

func shortName(name string) string { return name[:min(80, len(name))] }

// blobName tells which digest a path of an OCI layout has; "" for others.
func blobName(name string) digest.Digest {
	algorithm, hex, ok := strings.Cut(strings.TrimPrefix(name, "blobs/"), "/")
	if !ok || !strings.HasPrefix(name, "blobs/") {
		return ""
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	if d.Validate() != nil {
		return ""
	}
	return d
}

// entries tells which images the archive has.
func (l *loader) entries(ctx context.Context) ([]content.Entry, error) {
	var entries []content.Entry
	var err error
	switch {
	case l.small[ocispec.ImageLayoutFile] != nil && l.small[ocispec.ImageIndexFile] != nil:
		entries, err = l.layout()
	case l.small["manifest.json"] != nil:
		entries, err = l.dockerArchive(ctx)
	default:
		return nil, fault.New(fault.Invalid, "unrecognized image format")
	}
	if err == nil && len(entries) == 0 {
		err = fault.New(fault.Invalid, "invalid archive: it holds no image")
	}
	return entries, err
}

func (l *loader) layout() ([]content.Entry, error) {
	var index ocispec.Index
	if err := json.Unmarshal(l.small[ocispec.ImageIndexFile], &index); err != nil {
		return nil, fault.New(fault.Invalid, "invalid archive: index.json: %w", err)
	}
	now := time.Now()
	var entries []content.Entry
	for _, d := range index.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return nil, fault.New(fault.Invalid, "invalid archive: index.json names %q, which is not a digest", d.Digest)
		}
		if !content.IsNode(d.MediaType) {
			return nil, fault.New(fault.Invalid, "invalid archive: %s is of the type %q, neither a manifest nor an index", d.Digest, d.MediaType)
		}
		name := d.Annotations[content.AnnotationName]
		if name == "" {
			name = d.Annotations[content.AnnotationRefName]
		}
		e := content.Entry{Target: content.Bare(d), Updated: now}
		// A name with a digest is one only of what has that digest.
		if r, err := reference.Parse(name); err == nil && name != "" && (r.Digest == "" || r.Digest == d.Digest.String()) {
			e.Name = r.String()
		}
		entries = append(entries, e)
	}
	return entries, nil
}

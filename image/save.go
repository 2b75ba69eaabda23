package image

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/reference"
)

// SaveOptions as in GET /images/get.
type SaveOptions struct {
	// Platforms are those to save. Of one only its manifest is saved; with
	// several an index stays as it is, and the content of the others is left out.
	Platforms []string
	// Recompress, unless nil, has the layers compressed in one way. What is saved
	// is then another image, with another ID, of the same files.
	Recompress *Recompressing
}

// Save writes the images to w as one tar that is an OCI image layout and a
// docker-archive at once, with the blobs as they are stored, so that Load
// gives them their digests again. A repository without a tag stands for all its
// tags; what is called by a digest is saved without a name. Everything is found
// before the first byte is written. The same images give the same bytes.
func (s *Service) Save(ctx context.Context, w io.Writer, refs []string, o SaveOptions) error {
	defer s.content.Hold()()
	if o.Recompress != nil {
		defer s.content.Collect() // what was made for this archive alone
	}
	p, err := s.planSave(ctx, refs, o)
	if err != nil {
		return err
	}
	bw := bufio.NewWriterSize(w, 1<<20)
	tw := tar.NewWriter(bw)
	if err := p.write(ctx, tw); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	if err := bw.Flush(); err != nil {
		return err
	}
	for _, e := range p.called {
		s.publish("save", e.Target, e.Name)
	}
	return nil
}

// saving is what an archive will hold.
type saving struct {
	s        *Service
	only     []string        // platforms, as in SaveOptions
	anew     *recompressor   // nil: as they are
	called   []content.Entry // what was asked for, each once
	entries  []content.Entry // what stands for it in the archive
	blobs    []ocispec.Descriptor
	seen     map[digest.Digest]bool
	archived []archived
}

func (s *Service) planSave(ctx context.Context, refs []string, o SaveOptions) (*saving, error) {
	if len(refs) == 0 {
		return nil, fault.New(fault.Invalid, "no images to save")
	}
	p := &saving{s: s, only: o.Platforms, seen: map[digest.Digest]bool{}}
	if o.Recompress != nil {
		p.anew = newRecompressor(s, *o.Recompress)
	}
	for _, ref := range refs {
		entries, err := s.called(ctx, ref)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if err := p.add(ctx, e, ref); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// add plans one image, unless it is there.
func (p *saving) add(ctx context.Context, e content.Entry, ref string) error {
	target, only, err := p.s.Catalog.Narrow(e.Target, p.only, catalog.FamiliarTagged(ref))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(p.called, func(o content.Entry) bool { return o.Name == e.Name && o.Target.Digest == target.Digest }) {
		return nil
	}
	p.called = append(p.called, content.Entry{Name: e.Name, Target: target})
	if anew := p.anew; anew != nil {
		anew.only = only
		if target, err = anew.target(ctx, target, 0); err != nil {
			return err
		}
		for d := range only {
			if made, ok := anew.made[d]; ok {
				only[made.Digest] = true
			}
		}
	}
	p.entries = append(p.entries, content.Entry{Name: e.Name, Target: target})
	if err := p.addBlobs(target, only); err != nil {
		return err
	}
	return p.addArchived(e.Name, target, only, catalog.FamiliarTagged(ref))
}

// addBlobs plans the content of an image: of an index, that of the manifests
// that count.
func (p *saving) addBlobs(target ocispec.Descriptor, only map[digest.Digest]bool) error {
	add := func(d ocispec.Descriptor, size int64) error {
		if !p.seen[d.Digest] {
			p.seen[d.Digest] = true
			p.blobs = append(p.blobs, ocispec.Descriptor{Digest: d.Digest, Size: size})
		}
		return nil
	}
	if only == nil {
		return p.s.content.Walk(target, add)
	}
	if !content.IsIndex(target.MediaType) {
		if !only[target.Digest] {
			return nil
		}
		return p.s.content.Walk(target, add)
	}
	size, here := p.s.content.Size(target.Digest)
	if !here || p.seen[target.Digest] {
		return nil
	}
	n, err := p.s.content.Node(target)
	if err != nil {
		return err
	}
	if err := add(target, size); err != nil {
		return err
	}
	for _, c := range n.Children() {
		if err := p.addBlobs(c, only); err != nil {
			return err
		}
	}
	return nil
}

// called gives the names to save for what the user wrote.
func (s *Service) called(ctx context.Context, ref string) ([]content.Entry, error) {
	f, err := s.Catalog.Find(ctx, ref)
	r, noName := reference.ParseBare(ref)
	byID := err == nil && f.Name == ""
	if noName == nil && !byID && r.Tag == "" && r.Digest == "" {
		if tags := s.Catalog.Tags(r.Repository()); len(tags) > 0 {
			return tags, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if r.Digest != "" {
		f.Name = ""
	}
	return []content.Entry{{Name: f.Name, Target: f.Target}}, nil
}

// addArchived plans the image as a docker-archive sees it: one platform, a
// config and layers. An image that cannot be seen so is in the layout alone.
func (p *saving) addArchived(name string, target ocispec.Descriptor, only map[digest.Digest]bool, ref string) error {
	members := p.s.Catalog.Members(target)
	whole := slices.DeleteFunc(slices.Clone(members), func(m catalog.Member) bool {
		return m.Detail == nil || !m.Available || only != nil && !only[m.Desc.Digest]
	})
	m := catalog.Representative(whole)
	if m == nil {
		if !content.IsIndex(target.MediaType) && len(members) > 0 && !members[0].Available {
			return fault.New(fault.NotFound, "content of image %s for platform %s is missing in the store", ref, platform.Format(members[0].Platform))
		}
		return nil
	}
	a := archived{Config: blobFile(m.Detail.Manifest.Config.Digest), Layers: []string{}}
	for _, l := range m.Detail.Manifest.Layers {
		a.Layers = append(a.Layers, blobFile(l.Digest))
	}
	i := slices.IndexFunc(p.archived, func(b archived) bool { return a.Config == b.Config && slices.Equal(a.Layers, b.Layers) })
	if i < 0 {
		p.archived = append(p.archived, a)
		i = len(p.archived) - 1
	}
	if name != "" {
		p.archived[i].RepoTags = append(p.archived[i].RepoTags, reference.Familiar(name))
	}
	return nil
}

func blobFile(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

func (p *saving) write(ctx context.Context, tw *tar.Writer) error {
	if err := writeFile(tw, ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	dirs := map[string]bool{}
	for _, b := range p.blobs {
		for _, dir := range []string{ocispec.ImageBlobsDir + "/", path.Dir(blobFile(b.Digest)) + "/"} {
			if dirs[dir] {
				continue
			}
			dirs[dir] = true
			if err := tw.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
				return err
			}
		}
		if err := p.writeBlob(ctx, tw, b); err != nil {
			return err
		}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, e := range p.entries {
		index.Manifests = append(index.Manifests, content.Annotate(e))
	}
	if err := writeFile(tw, ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	if len(p.archived) == 0 {
		return nil
	}
	return writeFile(tw, "manifest.json", p.archived)
}

func writeFile(tw *tar.Writer, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o444, Size: int64(len(data)), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err = tw.Write(data)
	return err
}

func (p *saving) writeBlob(ctx context.Context, tw *tar.Writer, b ocispec.Descriptor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, size, err := p.s.content.Open(b.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tw.WriteHeader(&tar.Header{Name: blobFile(b.Digest), Typeflag: tar.TypeReg, Mode: 0o444, Size: size, ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(tw, content.Verify(f, b.Digest), make([]byte, 1<<20)); err != nil {
		return fmt.Errorf("cannot save %s: %w", b.Digest, err)
	}
	return nil
}

// Package images makes images for tests without the code that is tested: OCI
// layouts written in plain Go whose content repeats for the same seed, trees
// of a real Debian, and copies of both in registries, by skopeo.
package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types, for a spec with Docker set.
const (
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig    = "application/vnd.docker.container.image.v1+json"
	dockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Spec says what image to make. What is zero is one layer, one file, one KiB,
// gzip, this machine's platform.
type Spec struct {
	Layers int
	Files  int   // in each layer
	Size   int64 // bytes of each file, on average

	Seed        uint64
	Compression string           // "gzip", "zstd" or "none"
	Docker      bool             // Docker's media types rather than OCI's; gzip only
	Platform    ocispec.Platform // linux/amd64 when empty
	Config      ocispec.ImageConfig
	On          *Image      // an image of the same layout whose layers are below all others
	Bases       []io.Reader // plain tars, each a layer below those that are made; read once
	Tag         string      // the name in the layout, "latest" when empty
}

// Image is one that was made.
type Image struct {
	Dir      string // OCI layout
	Tag      string
	Manifest ocispec.Descriptor
	Config   ocispec.Image
	Layers   []ocispec.Descriptor
	Bytes    int64 // of the layers, uncompressed tars
}

// Ref is the image for skopeo.
func (i *Image) Ref() string {
	if i.Manifest.MediaType == dockerManifest {
		return "dir:" + i.dockerDir()
	}
	return "oci:" + i.Dir + ":" + i.Tag
}

// dockerDir holds the image once more for skopeo, which sees no manifest of
// Docker's type in an OCI layout.
func (i *Image) dockerDir() string { return filepath.Join(i.Dir, "docker-"+i.Tag) }

func (i *Image) writeDockerDir(l Layout, config digest.Digest) error {
	dir := i.dockerDir()
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		return err
	}
	err := errors.Join(os.WriteFile(filepath.Join(dir, "version"), []byte("Directory Transport Version: 1.1\n"), 0o644),
		os.Link(l.Path(i.Manifest.Digest), filepath.Join(dir, "manifest.json")), os.Link(l.Path(config), filepath.Join(dir, config.Encoded())))
	for n, d := range i.Layers {
		if !slices.ContainsFunc(i.Layers[:n], func(o ocispec.Descriptor) bool { return o.Digest == d.Digest }) {
			err = errors.Join(err, os.Link(l.Path(d.Digest), filepath.Join(dir, d.Digest.Encoded())))
		}
	}
	return err
}

// Write makes an image in the OCI layout dir, beside those that are there.
func Write(dir string, spec Spec) (*Image, error) {
	spec.defaults()
	img := &Image{Dir: dir, Tag: spec.Tag}
	created := time.Unix(1_700_000_000, 0).UTC()
	img.Config = ocispec.Image{Created: &created, Platform: spec.Platform, Config: spec.Config, RootFS: ocispec.RootFS{Type: "layers"}}
	l := Layout(dir)
	if err := l.init(); err != nil {
		return nil, err
	}
	if spec.On != nil {
		img.Layers, img.Bytes = slices.Clone(spec.On.Layers), spec.On.Bytes
		img.Config.RootFS.DiffIDs = slices.Clone(spec.On.Config.RootFS.DiffIDs)
		img.Config.History = slices.Clone(spec.On.Config.History)
	}
	for n := range len(spec.Bases) + spec.Layers {
		err := img.layer(l, spec, func(w io.Writer) error {
			if n < len(spec.Bases) {
				_, err := io.Copy(w, spec.Bases[n])
				return err
			}
			return synthetic(w, spec, n-len(spec.Bases))
		})
		if err != nil {
			return nil, err
		}
		img.Config.History = append(img.Config.History, ocispec.History{Created: &created, CreatedBy: fmt.Sprintf("layer %d", n)})
	}
	return img, img.finish(l, spec)
}

func (s *Spec) defaults() {
	s.Layers, s.Files, s.Size = max(s.Layers, 1), max(s.Files, 1), max(s.Size, 1)
	if s.Size == 1 {
		s.Size = 1024
	}
	if s.Compression == "" {
		s.Compression = "gzip"
	}
	if s.Platform.OS == "" {
		s.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	}
	if s.Tag == "" {
		s.Tag = "latest"
	}
}

// layer stores one layer, which fill writes as a plain tar.
func (i *Image) layer(l Layout, spec Spec, fill func(io.Writer) error) error {
	plain := digest.SHA256.Digester()
	var length counter
	mediaType := ocispec.MediaTypeImageLayer
	d, err := l.Blob("", func(w io.Writer) error {
		z, err := compressor(w, spec.Compression)
		if err != nil {
			return err
		}
		if err := fill(io.MultiWriter(z, plain.Hash(), &length)); err != nil {
			return err
		}
		return z.Close()
	})
	if err != nil {
		return err
	}
	if spec.Compression != "none" {
		mediaType += "+" + spec.Compression
	}
	if spec.Docker {
		mediaType = dockerLayerGzip
	}
	d.MediaType = mediaType
	i.Bytes += int64(length)
	i.Layers = append(i.Layers, d)
	i.Config.RootFS.DiffIDs = append(i.Config.RootFS.DiffIDs, plain.Digest())
	return nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func compressor(w io.Writer, how string) (io.WriteCloser, error) {
	switch how {
	case "none":
		return nopCloser{w}, nil
	case "gzip":
		return gzip.NewWriterLevel(w, 4)
	case "zstd":
		return zstd.NewWriter(w)
	}
	return nil, fmt.Errorf("no compression %q", how)
}

// finish stores config and manifest and gives the image its name.
func (i *Image) finish(l Layout, spec Spec) error {
	configType, manifestType := ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest
	if spec.Docker {
		configType, manifestType = dockerConfig, dockerManifest
	}
	config, err := l.JSON(configType, i.Config)
	if err != nil {
		return err
	}
	i.Manifest, err = l.JSON(manifestType, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType,
		Config: config, Layers: i.Layers})
	if err != nil {
		return err
	}
	i.Manifest.Platform = &spec.Platform
	if spec.Docker {
		if err := i.writeDockerDir(l, config.Digest); err != nil {
			return err
		}
	}
	return l.Name(i.Manifest, spec.Tag)
}

// Layout is the directory of an OCI image layout, for what Write does not
// make: artifacts, indexes, and what is broken on purpose.
type Layout string

func (l Layout) path(elem ...string) string {
	return filepath.Join(append([]string{string(l)}, elem...)...)
}

func (l Layout) init() error {
	if err := os.MkdirAll(l.path("blobs", "sha256"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(l.path(ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

// Path is where the blob lies.
func (l Layout) Path(d digest.Digest) string {
	return l.path("blobs", d.Algorithm().String(), d.Encoded())
}

// Blob stores what fill writes.
func (l Layout) Blob(mediaType string, fill func(io.Writer) error) (ocispec.Descriptor, error) {
	if err := l.init(); err != nil {
		return ocispec.Descriptor{}, err
	}
	f, err := os.CreateTemp(string(l), "blob-")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	sum := sha256.New()
	var size counter
	if err := fill(io.MultiWriter(f, sum, &size)); err != nil {
		return ocispec.Descriptor{}, err
	}
	d := digest.NewDigest(digest.SHA256, sum)
	if err := f.Chmod(0o644); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(size)}, os.Rename(f.Name(), l.Path(d))
}

// Bytes stores a small blob.
func (l Layout) Bytes(mediaType string, data []byte) (ocispec.Descriptor, error) {
	return l.Blob(mediaType, func(w io.Writer) error { _, err := w.Write(data); return err })
}

// JSON stores a manifest, an index or a config.
func (l Layout) JSON(mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return l.Bytes(mediaType, data)
}

// Index stores an index of the manifests under the name.
func (l Layout) Index(tag string, manifests ...ocispec.Descriptor) (ocispec.Descriptor, error) {
	d, err := l.JSON(ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
	if err != nil {
		return d, err
	}
	return d, l.Name(d, tag)
}

// Name puts a descriptor into the layout's index.json under the name, in the
// place of what had it.
func (l Layout) Name(d ocispec.Descriptor, tag string) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	data, err := os.ReadFile(l.path(ocispec.ImageIndexFile))
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	kept := []ocispec.Descriptor{}
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] != tag {
			kept = append(kept, m)
		}
	}
	d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	index.Manifests = append(kept, d)
	if data, err = json.Marshal(index); err != nil {
		return err
	}
	return os.WriteFile(l.path(ocispec.ImageIndexFile), data, 0o644)
}

// synthetic writes the layer of the number n as a tar: files of about the
// wanted size in directories of a hundred.
func synthetic(w io.Writer, spec Spec, n int) error {
	random := rand.New(rand.NewPCG(spec.Seed, uint64(n)))
	text := newProse(random)
	tw := tar.NewWriter(w)
	when := time.Unix(1_700_000_000+int64(n), 0)
	top := &tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("layer%d/", n), Mode: 0o755, ModTime: when}
	if err := tw.WriteHeader(top); err != nil {
		return err
	}
	for i := range spec.Files {
		if i%100 == 0 {
			dir := &tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("layer%d/%d/", n, i/100), Mode: 0o755, ModTime: when}
			if err := tw.WriteHeader(dir); err != nil {
				return err
			}
		}
		size := spec.Size
		if spec.Files > 1 { // many small ones and a few large ones
			size = int64(float64(spec.Size) * random.ExpFloat64())
		}
		hdr := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("layer%d/%d/file%d", n, i/100, i), Mode: 0o644, Size: size, ModTime: when}
		if err := tw.WriteHeader(hdr); err != nil {
			return err
		}
		if _, err := io.CopyN(tw, text, size); err != nil {
			return err
		}
	}
	return tw.Close()
}

// prose is endless content that compresses about as the files of real images
// do, to a bit more than a quarter: words of a fixed vocabulary, the frequent
// ones much more often, with runs of noise in between.
type prose struct {
	random *rand.Rand
	words  [][]byte
	rest   bytes.Buffer
}

func newProse(random *rand.Rand) *prose {
	p := &prose{random: random}
	for range 4096 {
		word := make([]byte, 3+random.IntN(10))
		for i := range word {
			word[i] = byte('a' + random.IntN(26))
		}
		p.words = append(p.words, append(word, ' '))
	}
	return p
}

func (p *prose) Read(b []byte) (int, error) {
	for p.rest.Len() < len(b) {
		i := int(float64(len(p.words)) * p.random.Float64() * p.random.Float64() * p.random.Float64() * p.random.Float64() * p.random.Float64())
		p.rest.Write(p.words[i])
		if p.random.IntN(256) == 0 {
			for range 8 {
				p.rest.WriteByte(byte(p.random.Uint32()))
			}
		}
	}
	return p.rest.Read(b)
}

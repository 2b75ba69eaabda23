package image

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/config"
)

// CommitOptions say how a container's changes become an image.
type CommitOptions struct {
	Parent    ocispec.Descriptor // the manifest that the container was made from
	Image     digest.Digest      // the image that has it, "" for none to remember
	Reference string             // name to give, "" for none
	Author    string
	Comment   string
	// Config is what the image is to say, nil for all of Container's. It is
	// changed by Changes, Dockerfile instructions, and what it leaves open is
	// filled in from Container's.
	Config    *dockerspec.DockerOCIImageConfig
	Container dockerspec.DockerOCIImageConfig
	Changes   []string
	// Squash makes one layer of all that the container has. The history of the
	// image below stays, as of layers that are empty, before one entry for all.
	Squash bool
	// Epoch, unless zero, is the time of the image, and the latest of its files
	// (SOURCE_DATE_EPOCH).
	Epoch time.Time
	// Check, unless nil, is called when the files have been read. Its error
	// throws the image away.
	Check func() error
}

// Commit makes an image of the parent's layers, as they are, and one with the
// changes, which it also unpacks, and returns its ID. Without changes there is
// no further layer. Media types are of the parent's family. What was begun
// leaves nothing when it fails.
func (s *Service) Commit(ctx context.Context, diff archive.Diff, o CommitOptions) (id string, err error) {
	name, err := importName(o.Reference)
	if err != nil {
		return "", err
	}
	config, err := commitConfig(o)
	if err != nil {
		return "", err
	}
	done := s.content.Attempt()
	defer func() { done(err) }()
	parent, err := s.Catalog.Detail(o.Parent)
	if err != nil {
		return "", fmt.Errorf("the image that the container was made from cannot be used: %w", err)
	}
	if n := len(parent.Manifest.Layers); n >= catalog.MaxLayers && !o.Squash {
		return "", fault.New(fault.Invalid, "the image that the container was made from has %d layers, and none may have more: commit with --squash", n)
	}
	if _, err := s.Catalog.UnpackManifest(ctx, o.Parent); err != nil {
		return "", err
	}
	layers, diffIDs, below := parent.Manifest.Layers, parent.Config.RootFS.DiffIDs, parent.Chain()
	if o.Squash {
		diff = archive.Diff{Whole: diff.Tree(), Made: diff.Made}
		layers, diffIDs, below = nil, nil, ""
	}
	layer, err := s.commitLayer(ctx, below, diff, archive.WriteOptions{Latest: o.Epoch})
	if err != nil {
		return "", err
	}
	if o.Check != nil {
		if err := o.Check(); err != nil {
			return "", err
		}
	}
	child := parent.Config
	child.Config, child.Author = config, o.Author
	child.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: slices.Clone(diffIDs)}
	layers = slices.Clone(layers)
	if layer.Digest != "" {
		child.RootFS.DiffIDs = append(child.RootFS.DiffIDs, layer.Digest)
		layers = append(layers, layer)
	}
	addHistory(&child, o, layer.Digest == "")
	target, err := putChild(s.content, o.Parent.MediaType, parent.Manifest, child, layers)
	if err != nil {
		return "", err
	}
	if err := s.store([]content.Entry{{Name: name, Target: target, Updated: time.Now(), Parent: o.Image}}); err != nil {
		return "", err
	}
	s.publish("create", target, "")
	if name != "" {
		s.publish("tag", target, name)
	}
	return target.Digest.String(), nil
}

// emptyArchive is the size of a tar without an entry.
const emptyArchive = 1024

// commitLayer stores the changes as a layer on the chain below. Without changes
// the descriptor is the zero one.
func (s *Service) commitLayer(ctx context.Context, below digest.Digest, diff archive.Diff, o archive.WriteOptions) (ocispec.Descriptor, error) {
	r, w := io.Pipe()
	written := make(chan error)
	go func() {
		_, err := diff.WriteLayer(ctx, w, o)
		w.CloseWithError(err)
		written <- err
	}()
	layer, err := s.storeLayer(ctx, below, r, emptyArchive)
	r.CloseWithError(err) // who writes does not go on for nobody
	if reason := <-written; reason != nil {
		err = reason // in its own words, or what the reader said
	}
	return layer, err
}

// addHistory adds the one entry. Of a squashed image the layers of those
// before it are gone.
func addHistory(c *dockerspec.DockerOCIImage, o CommitOptions, empty bool) {
	now := time.Now().UTC()
	if !o.Epoch.IsZero() {
		now = o.Epoch.UTC()
	}
	c.Created = &now
	c.History = slices.Clone(c.History)
	if o.Squash {
		for i := range c.History {
			c.History[i].EmptyLayer = true
		}
	}
	c.History = append(c.History, ocispec.History{
		Created: &now, CreatedBy: strings.Join(o.Container.Cmd, " "), Author: o.Author, Comment: o.Comment, EmptyLayer: empty,
	})
}

// putChild stores the config and the manifest of an image that was made from
// another one, in the media types of that one.
func putChild(store *content.Store, mediaType string, parent *ocispec.Manifest, says dockerspec.DockerOCIImage, layers []ocispec.Descriptor) (ocispec.Descriptor, error) {
	if mediaType != content.DockerManifest {
		return config.Put(store, says, layers)
	}
	c, err := store.PutJSON(parent.Config.MediaType, says)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for i := range layers {
		if layers[i].MediaType == ocispec.MediaTypeImageLayer {
			layers[i].MediaType = content.DockerLayer
		}
	}
	return store.PutJSON(mediaType, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Config: c, Layers: layers})
}

// commitConfig makes the config by Docker's rules.
func commitConfig(o CommitOptions) (dockerspec.DockerOCIImageConfig, error) {
	c := o.Container
	if o.Config != nil {
		c = *o.Config
	}
	// What is shared with the container's own record is not to be changed.
	c.Env, c.Labels = slices.Clone(c.Env), maps.Clone(c.Labels)
	c.ExposedPorts, c.Volumes = maps.Clone(c.ExposedPorts), maps.Clone(c.Volumes)
	if err := config.Change(&c, o.Changes); err != nil {
		return c, err
	}
	config.Fill(&c, &o.Container)
	return c, nil
}

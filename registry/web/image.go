package web

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/manifest"
	"github.com/tarehq/tare/registry/storage"
)

const (
	maxConfig = 1 << 20 // bytes of an image's config
	maxRows   = 300     // of each table
)

type imagePage struct {
	frame
	Repository string
	Tag        string
	Digest     digest.Digest
	MediaType  string
	Kind       string
	Artifact   string // its type
	Pull       string // the command; "" where there is nothing to run
	Size       int64
	Created    time.Time
	Pushed     time.Time
	Platform   string
	Subject    digest.Digest

	Settings  []pair // how a container of it runs
	Labels    []pair
	Notes     []pair // annotations
	Children  []childRow
	Steps     []step
	Referrers []referrer
	Cut       bool // some table has more than is shown
}

type pair struct{ Name, Value string }

type childRow struct {
	Platform string
	Digest   digest.Digest
	Size     int64 // 0: not here
	Missing  bool
}

// step is a layer, an entry of the history, or both.
type step struct {
	By     string
	Layer  digest.Digest
	Size   int64
	Type   string
	Hidden bool // an entry that made no layer
}

type referrer struct {
	Type   string
	Digest digest.Digest
	Size   int64
}

// image shows a manifest by its tag or its digest.
func (v *visit) image(repo, tag string, d digest.Digest) (any, error) {
	ctx := v.Context()
	p := &imagePage{Repository: repo, Tag: tag, Digest: d}
	if tag != "" {
		t, err := v.h.Storage.Tag(ctx, repo, tag)
		if err != nil {
			return nil, err
		}
		p.Digest, p.Pushed = t.Target.Digest, t.Updated
		p.frame = v.frame(repo + ":" + tag)
	} else {
		p.frame = v.frame(repo + "@" + string(d))
	}
	stored, err := v.h.Storage.Manifest(ctx, repo, p.Digest)
	if err != nil {
		return nil, err
	}
	if tag == "" {
		p.Pushed = stored.Updated
	}
	m, err := manifest.Read(stored.Descriptor.MediaType, p.Digest.Algorithm(), stored.Data)
	if err != nil {
		return nil, err
	}
	p.MediaType, p.Subject = m.Descriptor.MediaType, m.Subject
	v.describe(p, &m)
	if p.Kind != "artifact" {
		p.Pull = "docker pull " + v.host + "/" + repo
		if tag != "" {
			p.Pull += ":" + tag
		} else {
			p.Pull += "@" + string(d)
		}
	}
	return p, v.referrers(p)
}

// describe takes from the manifest what the page shows.
func (v *visit) describe(p *imagePage, m *storage.Manifest) {
	var document struct {
		ArtifactType string               `json:"artifactType"`
		Config       ocispec.Descriptor   `json:"config"`
		Layers       []ocispec.Descriptor `json:"layers"`
		Annotations  map[string]string    `json:"annotations"`
	}
	_ = json.Unmarshal(m.Data, &document) // manifest.Read has read it already
	p.Notes = v.pairs(p, document.Annotations)
	if manifest.IsList(p.MediaType) {
		p.Kind = "index"
		v.children(p, m)
		return
	}
	p.Size = total(m)
	config := v.config(p.Repository, m)
	if config == nil {
		p.Kind, p.Artifact = "artifact", document.ArtifactType
		if p.Artifact == "" {
			p.Artifact = document.Config.MediaType
		}
		p.steps(document.Layers, nil)
		return
	}
	p.Kind, p.Created, p.Platform = "image", created(config), platform(&config.Platform)
	p.Settings = settings(config)
	p.Labels = v.pairs(p, config.Config.Labels)
	p.steps(document.Layers, config.History)
}

func (v *visit) children(p *imagePage, m *storage.Manifest) {
	for i, c := range m.Manifests {
		if i == maxRows {
			p.Cut = true
			break
		}
		row := childRow{Digest: c.Digest, Platform: "other"}
		if c.Platform != nil {
			row.Platform = platform(c.Platform)
		}
		if kind := c.Annotations["vnd.docker.reference.type"]; kind != "" {
			row.Platform = kind
		}
		if i < 32 { // each is a read
			child, err := v.child(p.Repository, c.Digest)
			switch {
			case err == nil:
				row.Size = total(child)
			case errors.Is(err, fault.NotFound):
				row.Missing = true
			}
		}
		p.Children = append(p.Children, row)
	}
}

// steps sets the history beside the layers that it made, where they fit.
func (p *imagePage) steps(layers []ocispec.Descriptor, history []ocispec.History) {
	made := 0
	for _, h := range history {
		if !h.EmptyLayer {
			made++
		}
	}
	if made != len(layers) {
		history = nil
	}
	if history == nil {
		history = make([]ocispec.History, len(layers))
	}
	next := 0
	for _, h := range history {
		if len(p.Steps) == maxRows {
			p.Cut = true
			return
		}
		s := step{By: h.CreatedBy, Hidden: h.EmptyLayer}
		if s.By == "" {
			s.By = h.Comment
		}
		if !h.EmptyLayer {
			l := layers[next]
			s.Layer, s.Size, s.Type = l.Digest, l.Size, l.MediaType
			if title := l.Annotations[ocispec.AnnotationTitle]; s.By == "" {
				s.By = title
			}
			next++
		}
		p.Steps = append(p.Steps, s)
	}
}

func (v *visit) referrers(p *imagePage) error {
	list, err := v.h.Storage.Referrers(v.Context(), p.Repository, p.Digest, "", maxRows+1)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	for i, d := range list {
		if i == maxRows {
			p.Cut = true
			break
		}
		p.Referrers = append(p.Referrers, referrer{d.ArtifactType, d.Digest, d.Size})
	}
	return nil
}

const dockerConfig = "application/vnd.docker.container.image.v1+json"

// config reads the config of an image; nil if it is none, or too large to show.
func (v *visit) config(repo string, m *storage.Manifest) *ocispec.Image {
	if len(m.Blobs) == 0 {
		return nil
	}
	d := m.Blobs[0]
	if d.MediaType != ocispec.MediaTypeImageConfig && d.MediaType != dockerConfig {
		return nil
	}
	blob, err := v.h.Storage.Blob(v.Context(), repo, d.Digest)
	if err != nil {
		return &ocispec.Image{}
	}
	defer blob.Content.Close()
	var config ocispec.Image
	if blob.Size > maxConfig {
		return &config
	}
	data, err := io.ReadAll(io.LimitReader(blob.Content, maxConfig))
	if err != nil {
		return &config
	}
	_ = json.Unmarshal(data, &config) // what can be read of it is shown
	return &config
}

func created(c *ocispec.Image) time.Time {
	if c.Created == nil {
		return time.Time{}
	}
	return *c.Created
}

func platform(p *ocispec.Platform) string {
	parts := []string{p.OS, p.Architecture}
	if p.Variant != "" {
		parts = append(parts, p.Variant)
	}
	return strings.Trim(strings.Join(parts, "/"), "/")
}

func settings(c *ocispec.Image) (list []pair) {
	add := func(name string, values ...string) {
		if text := strings.Join(values, " "); text != "" {
			list = append(list, pair{name, text})
		}
	}
	add("Entrypoint", words(c.Config.Entrypoint))
	add("Command", words(c.Config.Cmd))
	add("Directory", c.Config.WorkingDir)
	add("User", c.Config.User)
	add("Ports", slices.Sorted(maps.Keys(c.Config.ExposedPorts))...)
	add("Volumes", slices.Sorted(maps.Keys(c.Config.Volumes))...)
	add("Stop signal", c.Config.StopSignal)
	for _, e := range c.Config.Env[:min(len(c.Config.Env), maxRows)] {
		add("Env", e)
	}
	return list
}

// words shows arguments so that they can be told apart.
func words(args []string) string {
	if len(args) == 0 {
		return ""
	}
	text, err := json.Marshal(args)
	if err != nil {
		return strings.Join(args, " ")
	}
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(text))
}

// pairs sorts annotations and labels.
func (v *visit) pairs(p *imagePage, m map[string]string) (list []pair) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if len(list) == maxRows {
			p.Cut = true
			break
		}
		list = append(list, pair{name, m[name]})
	}
	return list
}

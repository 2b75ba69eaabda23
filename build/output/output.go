// Package output makes what a client wants of a build's results: images here or
// in a registry, archives, and files.
package output

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/client"
	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/fault"
)

// Writer makes what is wanted of a result.
type Writer struct {
	Store  build.Store
	Caller session.Caller
	Tells  *progress.Record
	Epoch  time.Time
	Said   map[string]string    // what the client is told
	Inline Inline               // nil for images that carry no cache
	Images []ocispec.Descriptor // that were made here
}

// IsSaid tells whether metadata of a front end's are for the client.
func IsSaid(key string) bool {
	return strings.HasPrefix(key, "frontend.") || strings.HasPrefix(key, "result.")
}

// Write makes one of the things.
func (o *Writer) Write(ctx context.Context, w Wanted, results []Made) error {
	if w.epoch.IsZero() {
		w.epoch = o.Epoch
	}
	switch w.kind {
	case "image":
		return o.image(ctx, w, results)
	case "oci", "docker":
		return o.archive(ctx, w, results)
	}
	return o.files(ctx, w, results)
}

// exporter makes an image as it is wanted.
func (o *Writer) exporter(w Wanted) *exporter {
	return &exporter{store: o.Store, epoch: w.epoch, want: w, inline: o.Inline}
}

// image keeps the result as an image here, and pushes it.
func (o *Writer) image(ctx context.Context, w Wanted, results []Made) (err error) {
	vertex, end := progress.Task(o.Tells, "exporting to image")
	defer func() { end(err) }()
	target, texts, err := o.export(ctx, w, vertex, results)
	if err != nil {
		return err
	}
	if w.store {
		done := progress.Part(o.Tells, vertex, "writing image "+target.Digest.String())
		if _, err := o.Store.Publish(ctx, target, w.names, texts); err != nil {
			return err
		}
		o.Images = append(o.Images, target)
		done()
		for _, name := range w.names {
			progress.Part(o.Tells, vertex, "naming to "+name)()
		}
	}
	if !w.push {
		return nil
	}
	for _, name := range w.names {
		if err := o.push(ctx, w, vertex, name, target); err != nil {
			return err
		}
	}
	return nil
}

// export stores what the image is made of, but for the texts of one that gets a
// name, and tells the client what it is.
func (o *Writer) export(ctx context.Context, w Wanted, vertex digest.Digest, results []Made) (target ocispec.Descriptor, texts [][]byte, err error) {
	done := progress.Part(o.Tells, vertex, "exporting layers")
	x := o.exporter(w)
	if target, err = x.target(ctx, results); err != nil {
		return target, nil, err
	}
	if w.kind != "image" || !w.store {
		if err := x.flush(ctx); err != nil {
			return target, nil, err
		}
	}
	done()
	return target, x.texts, o.say(w, target, x.config)
}

// say tells the client what the image is.
func (o *Writer) say(w Wanted, target, config ocispec.Descriptor) error {
	text, err := json.Marshal(target)
	if err != nil {
		return err
	}
	o.Said[exptypes.ExporterImageDigestKey] = target.Digest.String()
	o.Said[exptypes.ExporterImageDescriptorKey] = base64.StdEncoding.EncodeToString(text)
	if config.Digest != "" {
		o.Said[exptypes.ExporterConfigDigestKey] = config.Digest.String()
	}
	names := slices.Clone(w.names)
	if w.canonical {
		for _, name := range w.names {
			names = append(names, named(name, target.Digest))
		}
	}
	if len(names) > 0 {
		o.Said[exptypes.ExporterImageNameKey] = strings.Join(names, ",")
	}
	return nil
}

// named is a repository's name with a digest in place of the tag.
func named(name string, d digest.Digest) string {
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		name = name[:i]
	}
	return name + "@" + d.String()
}

func (o *Writer) push(ctx context.Context, w Wanted, vertex digest.Digest, name string, target ocispec.Descriptor) error {
	host, _, _ := strings.Cut(name, "/")
	auth, err := (&client.Session{Caller: o.Caller}).Credentials(ctx, host)
	if err != nil {
		return err
	}
	tell := func(t build.Transfer) {
		if t.ID != "" {
			o.Tells.Status(build.TaskStatus{ID: t.ID, Vertex: vertex, Name: t.Action, Current: t.Current, Total: t.Total})
		}
	}
	done := progress.Part(o.Tells, vertex, "pushing "+name)
	switch {
	case w.byDigest:
		err = o.Store.PushContent(ctx, build.ImageRequest{Ref: named(name, target.Digest), Auth: auth}, target, tell)
	case !w.store:
		err = o.Store.PushContent(ctx, build.ImageRequest{Ref: name, Auth: auth}, target, tell)
	default:
		err = o.Store.Push(ctx, name, auth, tell)
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "failed to push %s: %w", name, err)
	}
	done()
	return nil
}

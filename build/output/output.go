// Package output makes what a client wants of a build's results: images here or
// in a registry, archives, and files.
package output

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/client"
	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Wanted is one of the things that are to be made of a result.
type Wanted struct {
	id          int    // its place in the request, by which the client knows it
	kind        string // image, local, tar, oci, docker
	names       []string
	push, split bool
	store       bool // an image is kept here
	epoch       time.Time
	annotations annotations
}

// Writer makes what is wanted of a result.
type Writer struct {
	Store  build.Store
	Caller session.Caller
	Tells  *progress.Record
	Epoch  time.Time
	Said   map[string]string // what the client is told
}

// IsSaid tells whether metadata of a front end's are for the client.
func IsSaid(key string) bool {
	return strings.HasPrefix(key, "frontend.") || strings.HasPrefix(key, "result.")
}

// Read reads what is wanted, and refuses by name what cannot be made.
func Read(r *controlapi.SolveRequest) ([]Wanted, error) {
	list := r.Exporters
	if len(list) == 0 && r.ExporterDeprecated != "" {
		list = []*controlapi.Exporter{{Type: r.ExporterDeprecated, Attrs: r.ExporterAttrsDeprecated}}
	}
	var all []Wanted
	for i, e := range list {
		w := Wanted{id: i, kind: e.GetType(), store: true, split: true}
		switch w.kind {
		case "moby", "image":
			w.kind = "image"
		case "local", "tar", "oci", "docker":
		default:
			return nil, fault.New(fault.Invalid, "exporter %q could not be found", e.GetType())
		}
		for _, key := range slices.Sorted(maps.Keys(e.GetAttrs())) {
			if err := w.option(key, e.Attrs[key]); err != nil {
				return nil, err
			}
		}
		if w.push && len(w.names) == 0 {
			return nil, fault.New(fault.Invalid, "tag is needed when pushing to registry")
		}
		all = append(all, w)
	}
	return all, nil
}

func (w *Wanted) option(key, value string) (err error) {
	if a, isAnnotation, err := exptypes.ParseAnnotationKey(key); err != nil || isAnnotation {
		w.annotations = append(w.annotations, annotation{a, value})
		return err
	}
	set := func(to *bool) error {
		if *to, err = strconv.ParseBool(value); err != nil {
			return fault.New(fault.Invalid, "non-bool value %q specified for %s", value, key)
		}
		return nil
	}
	// What asks for what is done anyway is met, what asks for something else is not.
	only := func(values ...string) error {
		if !slices.Contains(values, value) {
			return fault.New(fault.NotImplemented, "the output option %s=%s is not supported: leave it out", key, value)
		}
		return nil
	}
	switch key {
	case "name":
		for _, name := range strings.Split(value, ",") {
			if name == "" {
				continue
			}
			r, err := reference.Parse(name)
			if err != nil {
				return err
			}
			w.names = append(w.names, r.String())
		}
		return nil
	case "push":
		return set(&w.push)
	case "store":
		return set(&w.store)
	case "platform-split":
		return set(&w.split)
	case "source-date-epoch":
		if value == "" {
			return nil
		}
		w.epoch, err = EpochOf(map[string]string{"build-arg:SOURCE_DATE_EPOCH": value})
		return err
	case "unpack", "tar", "oci-mediatypes":
		return only("", "true", "1")
	case "compression":
		return only("", "gzip", "uncompressed")
	case "push-by-digest", "registry.insecure", "force-compression", "rewrite-timestamp", "oci-artifact", "attestation-inline", "prefer-nondist-layers", "name-canonical", "danging-name-empty-only":
		return only("", "false", "0")
	case "dest", "dir", "mode", "attestation-prefix", "dangling-name-prefix", "context", "load":
		return nil // the client's own, or of what is not made
	}
	return fault.New(fault.Invalid, "the output has no option %s", key)
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

// image keeps the result as an image here, and pushes it.
func (o *Writer) image(ctx context.Context, w Wanted, results []Made) (err error) {
	vertex, end := progress.Task(o.Tells, "exporting to image")
	defer func() { end(err) }()
	done := progress.Part(o.Tells, vertex, "exporting layers")
	x := &exporter{store: o.Store, epoch: w.epoch, annotations: w.annotations}
	target, _, err := x.target(ctx, results)
	if err != nil {
		return err
	}
	done()
	if err := o.say(w, target); err != nil {
		return err
	}
	done = progress.Part(o.Tells, vertex, "writing image "+target.Digest.String())
	if _, err := o.Store.Publish(ctx, target, w.names); err != nil {
		return err
	}
	done()
	for _, name := range w.names {
		progress.Part(o.Tells, vertex, "naming to "+name)()
	}
	if !w.push {
		return nil
	}
	for _, name := range w.names {
		if err := o.push(ctx, vertex, name); err != nil {
			return err
		}
	}
	return nil
}

// say tells the client what the image is.
func (o *Writer) say(w Wanted, target ocispec.Descriptor) error {
	text, err := json.Marshal(target)
	if err != nil {
		return err
	}
	o.Said[exptypes.ExporterImageDigestKey] = target.Digest.String()
	o.Said[exptypes.ExporterImageDescriptorKey] = base64.StdEncoding.EncodeToString(text)
	if len(w.names) > 0 {
		o.Said[exptypes.ExporterImageNameKey] = strings.Join(w.names, ",")
	}
	return nil
}

func (o *Writer) push(ctx context.Context, vertex digest.Digest, name string) error {
	host, _, _ := strings.Cut(name, "/")
	auth, err := (&client.Session{Caller: o.Caller}).Credentials(ctx, host)
	if err != nil {
		return err
	}
	done := progress.Part(o.Tells, vertex, "pushing "+name)
	err = o.Store.Push(ctx, name, auth, func(t build.Transfer) {
		if t.ID != "" {
			o.Tells.Status(build.TaskStatus{ID: t.ID, Vertex: vertex, Name: t.Action, Current: t.Current, Total: t.Total})
		}
	})
	if err != nil {
		return fault.New(fault.KindOf(err), "failed to push %s: %w", name, err)
	}
	done()
	return nil
}

// CheckAttestation refuses attestations that were asked for. Clients ask by
// themselves for one that only some outputs take.
func CheckAttestation(key, value string) error {
	kind, found := strings.CutPrefix(key, "attest:")
	if !found {
		return nil
	}
	for _, word := range strings.Split(value, ",") {
		if word == "inline-only=true" || word == "disabled=true" {
			return nil
		}
	}
	return fault.New(fault.NotImplemented, "attestations are not supported yet: say --%s=false", kind)
}

// EpochOf is the time that all of an image gets, zero for none.
func EpochOf(attrs map[string]string) (time.Time, error) {
	v := attrs["build-arg:SOURCE_DATE_EPOCH"]
	if v == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "invalid SOURCE_DATE_EPOCH: %s", v)
	}
	return time.Unix(n, 0).UTC(), nil
}

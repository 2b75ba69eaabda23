package output

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Wanted is one of the things that are to be made of a result.
type Wanted struct {
	id          int    // its place in the request, by which the client knows it
	kind        string // image, local, tar, oci, docker
	names       []string
	push, split bool
	byDigest    bool // what is pushed has no name there
	store       bool // an image is kept here
	layout      bool // an archive is files of a layout, not a tar
	canonical   bool // the client is told names with the digest
	epoch       time.Time
	annotations annotations
	prefix      string // of the files of attestations

	compression string // gzip, zstd, uncompressed; "" leaves layers as they are
	level       int
	force       bool // layers that are compressed otherwise, too
	docker      bool // Docker's media types
	inline      bool // attestations that are for images alone
	artifact    bool // attestations are artifacts
}

// Read reads what is wanted, and refuses by name what cannot be made.
func Read(r *controlapi.SolveRequest) ([]Wanted, error) {
	list := r.Exporters
	if len(list) == 0 && r.ExporterDeprecated != "" {
		list = []*controlapi.Exporter{{Type: r.ExporterDeprecated, Attrs: r.ExporterAttrsDeprecated}}
	}
	var all []Wanted
	for i, e := range list {
		w := Wanted{id: i, kind: e.GetType(), store: true, split: true, layout: false}
		switch w.kind {
		case "moby", "image":
			w.kind, w.inline = "image", true
		case "local", "tar", "oci", "docker":
		default:
			return nil, fault.New(fault.Invalid, "exporter %q could not be found", e.GetType())
		}
		for _, key := range slices.Sorted(maps.Keys(e.GetAttrs())) {
			if err := w.option(key, e.Attrs[key]); err != nil {
				return nil, err
			}
		}
		if err := w.check(); err != nil {
			return nil, err
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
		return w.name(value)
	case "push":
		return set(&w.push)
	case "push-by-digest":
		return set(&w.byDigest)
	case "store":
		return set(&w.store)
	case "platform-split":
		return set(&w.split)
	case "name-canonical":
		return set(&w.canonical)
	case "force-compression":
		return set(&w.force)
	case "attestation-inline":
		return set(&w.inline)
	case "oci-artifact":
		return set(&w.artifact)
	case "oci-mediatypes":
		oci := true
		err := set(&oci)
		w.docker = !oci
		return err
	case "tar":
		tar := true
		err := set(&tar)
		w.layout = !tar
		return err
	case "source-date-epoch":
		if value == "" {
			return nil
		}
		w.epoch, err = EpochOf(map[string]string{"build-arg:SOURCE_DATE_EPOCH": value})
		return err
	case "compression":
		return w.compress(value)
	case "compression-level":
		if w.level, err = strconv.Atoi(value); err != nil {
			return fault.New(fault.Invalid, "non-integer value %q specified for %s", value, key)
		}
		return nil
	case "attestation-prefix":
		w.prefix = value
		return nil
	case "unpack":
		return only("", "true", "false", "1", "0") // an image is ready at once
	case "rewrite-timestamp":
		return only("", "true", "false", "1", "0") // with SOURCE_DATE_EPOCH no file is newer in any case
	case "registry.insecure", "prefer-nondist-layers":
		return only("", "false", "0")
	case "dangling-name-prefix":
		return only("", "moby-dangling") // what has no name is here by its ID; dockerd says it so
	case "danging-name-empty-only":
		return only("", "true", "false", "1", "0") // of that name alone
	case "dest", "dir", "mode", "context", "load":
		return nil // the client's own
	}
	return fault.New(fault.Invalid, "the output has no option %s", key)
}

func (w *Wanted) name(list string) error {
	for _, name := range strings.Split(list, ",") {
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
}

func (w *Wanted) compress(kind string) error {
	switch kind {
	case "", "gzip", "zstd", "uncompressed":
		w.compression = kind
		return nil
	case "estargz":
		return fault.New(fault.NotImplemented, "the compression estargz is not supported: say gzip, zstd or uncompressed")
	}
	return fault.New(fault.Invalid, "unsupported layer compression type: %s", kind)
}

// check refuses what does not go together.
func (w *Wanted) check() error {
	switch {
	case w.push && len(w.names) == 0:
		return fault.New(fault.Invalid, "tag is needed when pushing to registry")
	case w.kind == "image" && !w.store && !w.push:
		return fault.New(fault.Invalid, "an image that is neither stored nor pushed is nowhere: leave out store=false, or say push=true")
	case w.docker && w.compression == "zstd":
		return fault.New(fault.Invalid, "zstd needs OCI's media types: leave out oci-mediatypes=false")
	}
	return nil
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

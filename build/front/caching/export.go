package caching

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/cacheio"
	"github.com/tarehq/tare/build/front/client"
	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/build/output"
	"github.com/tarehq/tare/fault"
)

// Export is a cache that is to be written of a build.
type Export struct {
	kind        string // inline, registry, local, s3, azblob
	everything  bool   // mode=max
	ref, store  string
	shop        *store
	form        cacheio.Form
	compression build.Compression
	ignoreError bool
}

// Exports reads what is to be written, and refuses by name what cannot be.
func Exports(o *controlapi.CacheOptions) (list []Export, err error) {
	entries := o.GetExports()
	if ref := o.GetExportRefDeprecated(); ref != "" {
		attrs := map[string]string{"ref": ref}
		for key, value := range o.GetExportAttrsDeprecated() {
			attrs[key] = value
		}
		entries = append(entries, &controlapi.CacheOptionsEntry{Type: "registry", Attrs: attrs})
	}
	for _, e := range entries {
		x, err := exportOf(e.GetType(), e.GetAttrs())
		if err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, nil
}

func exportOf(kind string, attrs map[string]string) (x Export, err error) {
	x = Export{kind: kind, form: cacheio.Form{OCI: true}}
	switch kind {
	case "inline":
		return x, nil
	case "registry":
		if x.ref, err = refOf(attrs); err != nil {
			return x, err
		}
	case "local":
		if x.store = attrs["dest"]; x.store == "" {
			return x, fault.New(fault.Invalid, "local cache exporter requires dest")
		}
		x.store = "local:" + x.store
	case "s3", "azblob":
		if x.shop, err = storeOf(kind, attrs); err != nil {
			return x, err
		}
	default:
		return x, fault.New(fault.NotImplemented, "the export of the cache by type=%s is not supported: say inline, registry, local, s3 or azblob", kind)
	}
	switch mode := attrs["mode"]; mode {
	case "", "min":
	case "max":
		x.everything = true
	default:
		return x, fault.New(fault.Invalid, "invalid mode=%s of a cache: say min or max", mode)
	}
	truth := func(key string, to *bool) {
		if v, ok := attrs[key]; ok && err == nil {
			if *to, err = strconv.ParseBool(v); err != nil {
				err = fault.New(fault.Invalid, "failed to parse %s: non-bool value %q", key, v)
			}
		}
	}
	truth("oci-mediatypes", &x.form.OCI)
	x.form.ImageManifest = x.form.OCI
	truth("image-manifest", &x.form.ImageManifest)
	truth("ignore-error", &x.ignoreError)
	truth("force-compression", &x.compression.Force)
	if err != nil {
		return x, err
	}
	if x.form.ImageManifest && !x.form.OCI {
		return x, fault.New(fault.Invalid, "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format")
	}
	return x, x.compress(attrs)
}

func (x *Export) compress(attrs map[string]string) (err error) {
	switch kind := attrs["compression"]; kind {
	case "", "gzip", "zstd", "uncompressed":
		x.compression.Kind = kind
	default:
		return fault.New(fault.NotImplemented, "compression=%s is not supported for a cache: say gzip, zstd or uncompressed", kind)
	}
	if v := attrs["compression-level"]; v != "" {
		if x.compression.Level, err = strconv.Atoi(v); err != nil {
			return fault.New(fault.Invalid, "non-integer value %s specified for compression-level", v)
		}
		if x.compression.Kind == "" {
			x.compression.Kind = "gzip"
		}
	}
	return nil
}

// Inline is what images carry, if that is wanted.
func Inline(job *build.Job, list []Export) output.Inline {
	for _, x := range list {
		if x.kind == "inline" {
			return func(ctx context.Context, layers []build.Layer) ([]byte, error) { return inline(ctx, job, layers) }
		}
	}
	return nil
}

func inline(ctx context.Context, job *build.Job, layers []build.Layer) ([]byte, error) {
	records, err := job.Known(ctx)
	if err != nil {
		return nil, err
	}
	var diffIDs []digest.Digest
	for _, l := range layers {
		diffIDs = append(diffIDs, l.DiffID)
	}
	return cacheio.Inline(records, diffIDs)
}

func solved(results []output.Made) (list []*build.Result) {
	for _, m := range results {
		if m.Result != nil {
			list = append(list, m.Result)
		}
	}
	return list
}

// Writer writes caches of a build that has its results.
type Writer struct {
	Job     *build.Job
	Store   build.Store
	Session *client.Session
	Tells   *progress.Record
	Said    map[string]string // what the client is told
}

// Write writes the caches that are not in an image.
func (w *Writer) Write(ctx context.Context, list []Export, results []output.Made) error {
	for _, x := range list {
		if x.kind == "inline" {
			continue
		}
		to := map[string]string{"registry": "registry", "local": "client directory", "s3": "Amazon S3", "azblob": "Azure Blob Storage"}[x.kind]
		vertex, end := progress.Task(w.Tells, "exporting cache to "+to)
		err := w.write(ctx, x, results, vertex)
		end(err)
		if err != nil && !x.ignoreError {
			return fmt.Errorf("error writing the cache: %w", err)
		}
	}
	return nil
}

func (w *Writer) write(ctx context.Context, x Export, results []output.Made, vertex digest.Digest) error {
	done := progress.Part(w.Tells, vertex, "preparing build cache for export")
	records, err := w.Job.Export(ctx, solved(results), x.everything, x.compression)
	if err != nil {
		return err
	}
	text, blobs, err := cacheio.Write(records)
	if err != nil {
		return err
	}
	done()
	if len(blobs) == 0 {
		progress.Part(w.Tells, vertex, "skipping cache export for empty result")()
		return nil
	}
	if x.shop != nil {
		return x.shop.write(ctx, text, blobs, func(d ocispec.Descriptor) (io.ReadCloser, error) { return w.Store.Blob(ctx, d.Digest) },
			func(name string) func() { return progress.Part(w.Tells, vertex, name) })
	}
	config := ocispec.Descriptor{MediaType: cacheio.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	manifest, head, err := x.form.Manifest(config, blobs)
	if err != nil {
		return err
	}
	for _, put := range []struct {
		d    ocispec.Descriptor
		text []byte
	}{{config, text}, {manifest, head}} {
		if err := w.Store.PutBlob(ctx, put.d, bytes.NewReader(put.text)); err != nil {
			return err
		}
	}
	if x.kind == "registry" {
		err = w.push(ctx, x.ref, manifest, vertex)
	} else {
		err = w.lend(ctx, x.store, append(blobs, config, manifest), vertex)
	}
	if err != nil {
		return err
	}
	// There is one word for all caches, and who writes a directory's index needs it.
	said, err := json.Marshal(manifest)
	if _, told := w.Said["cache.manifest"]; !told || x.kind == "local" {
		w.Said["cache.manifest"] = string(said)
	}
	return err
}

func (w *Writer) push(ctx context.Context, ref string, manifest ocispec.Descriptor, vertex digest.Digest) error {
	r, err := w.Job.Request(ctx, ref)
	if err != nil {
		return err
	}
	defer progress.Part(w.Tells, vertex, "writing cache manifest "+manifest.Digest.String())()
	return w.Store.PushContent(ctx, r, manifest, func(t build.Transfer) {
		if t.ID != "" {
			w.Tells.Status(build.TaskStatus{ID: t.ID, Vertex: vertex, Name: t.Action, Current: t.Current, Total: t.Total})
		}
	})
}

// lend writes blobs into a store of the client's.
func (w *Writer) lend(ctx context.Context, store string, list []ocispec.Descriptor, vertex digest.Digest) error {
	for _, d := range list {
		done := progress.Part(w.Tells, vertex, "writing "+d.Digest.String())
		r, err := w.Store.Blob(ctx, d.Digest)
		if err != nil {
			return err
		}
		err = w.Session.Keep(ctx, store, d, r)
		r.Close()
		if err != nil {
			return err
		}
		done()
	}
	return nil
}

package build

import (
	"bytes"
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build/cacheio"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

// CacheSource is where a cache lies that a build may use: behind a name in a
// registry, or in one of the client's stores.
type CacheSource struct {
	Ref    string        // normalized
	Store  string        // of the client's
	Digest digest.Digest // in that store
}

// imported is a cache that the job may use.
type imported struct {
	cache *cacheio.Cache
	from  wellspring
}

// wellspring is a place that has blobs.
type wellspring interface {
	cacheio.Source
	// keep has a blob in the daemon's store.
	keep(ctx context.Context, d ocispec.Descriptor) error
}

// Import reads what a cache has. Its layers are fetched when they are needed.
func (j *Job) Import(ctx context.Context, c CacheSource) error {
	var from wellspring
	var root ocispec.Descriptor
	if c.Ref != "" {
		r, err := j.request(ctx, ImageRequest{Ref: c.Ref})
		if err != nil {
			return err
		}
		at := &remoteWell{job: j, request: r}
		d, data, err := j.solver.Store.Document(ctx, r)
		if err != nil {
			return err
		}
		at.first, at.data, root, from = d.Digest, data, d, at
	} else {
		from, root = &lentWell{job: j, store: c.Store}, ocispec.Descriptor{Digest: c.Digest}
	}
	cache, err := cacheio.Read(ctx, from, root)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.imports = append(j.imports, imported{cache, from})
	return nil
}

// remoteWell is a repository of a registry.
type remoteWell struct {
	job     *Job
	request ImageRequest
	first   digest.Digest // whose text is data
	data    []byte
}

func (w *remoteWell) Document(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Digest == w.first {
		return w.data, nil
	}
	switch d.MediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.v2+json",
		"application/vnd.docker.distribution.manifest.list.v2+json":
		r := w.request
		r.Ref += "@" + d.Digest.String()
		_, data, err := w.job.solver.Store.Document(ctx, r)
		return data, err
	}
	if err := w.keep(ctx, d); err != nil {
		return nil, err
	}
	return w.job.stored(ctx, d, limit)
}

func (w *remoteWell) keep(ctx context.Context, d ocispec.Descriptor) error {
	return w.job.solver.Store.FetchBlob(ctx, w.request, d, nil)
}

// stored reads a small blob of the daemon's store.
func (j *Job) stored(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	r, err := j.solver.Store.Blob(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readAll(r, d, limit)
}

// readAll reads a blob that is no larger than limit, and is what it says.
func readAll(r io.Reader, d ocispec.Descriptor, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, fault.New(fault.Invalid, "%s has more than %d bytes", d.Digest, limit)
	case d.Digest.Algorithm().FromBytes(data) != d.Digest:
		return nil, fault.New(fault.Invalid, "what was read as %s is something else", d.Digest)
	}
	return data, nil
}

// lentWell is a store of the client's.
type lentWell struct {
	job   *Job
	store string
}

func (w *lentWell) Document(ctx context.Context, d ocispec.Descriptor, limit int64) (data []byte, err error) {
	err = w.job.session.Content(ctx, w.store, d, func(r io.Reader) error {
		data, err = readAll(r, d, limit)
		return err
	})
	return data, err
}

func (w *lentWell) keep(ctx context.Context, d ocispec.Descriptor) error {
	return w.job.session.Content(ctx, w.store, d, func(r io.Reader) error { return w.job.solver.Store.PutBlob(ctx, d, r) })
}

// put stores a small blob.
func (j *Job) put(ctx context.Context, d ocispec.Descriptor, data []byte) error {
	return j.solver.Store.PutBlob(ctx, d, bytes.NewReader(data))
}

// recallImported finds a vertex in the caches that were imported. The layers
// need not be anywhere: then the output is for making keys of.
func (j *Job) recallImported(v *vertex, key digest.Digest) []*output {
	j.mu.Lock()
	imports := j.imports
	j.mu.Unlock()
	for _, in := range imports {
		outputs := make([]*output, v.results())
		for i := range outputs {
			r, ok := in.cache.Lookup(outputKey(key, i))
			if !ok {
				outputs = nil
				break
			}
			outputs[i] = &output{layers: stackOf(r.Layers), key: outputKey(key, i), again: func(ctx context.Context) (*output, error) { return j.remake(ctx, v, i) }}
			if r.Blobs {
				j.offer(outputs[i].layers, func(ctx context.Context, l Layer) error { return in.from.keep(ctx, l.Blob) })
			}
		}
		if outputs != nil {
			return outputs
		}
	}
	return nil
}

// stackOf puts the layers of a record on each other.
func stackOf(list []cacheio.Layer) []Layer {
	var layers []Layer
	below := digest.Digest("")
	for _, l := range list {
		below = snapshot.ChainID(below, l.DiffID)
		layers = append(layers, Layer{Chain: below, DiffID: l.DiffID, Blob: l.Blob, Created: l.Created})
	}
	return layers
}

// awaited is what was found in a cache from elsewhere, and is to be remembered
// here when its layers are.
type awaited struct {
	v       *vertex
	key     keys
	outputs []*output
}

// settle remembers what was found elsewhere and is here now.
func (j *Job) settle(ctx context.Context) error {
	var due, rest []awaited
	j.mu.Lock()
	for _, a := range j.awaited {
		here := true
		for _, o := range a.outputs {
			here = here && (o.chain() == "" || j.here[o.chain()])
		}
		if here {
			due = append(due, a)
		} else {
			rest = append(rest, a)
		}
	}
	j.awaited = rest
	j.mu.Unlock()
	for _, a := range due {
		if err := j.solver.cache.add(ctx, a.key, a.v.name, a.v.recordType(), a.outputs, j.options.Epoch); err != nil {
			return err
		}
	}
	return nil
}

package build

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build/cacheio"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

// CacheSource is where a cache lies that a build may use: behind a name, of an
// image here or else in a registry, or in one of the client's stores.
type CacheSource struct {
	Ref    string        // normalized
	Here   bool          // no registry is asked
	Store  string        // of the client's
	Digest digest.Digest // in that store
	// Cache is one that was read already, whose blobs Open opens.
	Cache *cacheio.Cache
	Open  func(context.Context, digest.Digest) (io.ReadCloser, error)
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
	var err error
	switch {
	case c.Cache != nil:
		j.use(c.Cache, &openWell{j, c.Open})
		return nil
	case c.Ref == "":
		from, root = &lentWell{job: j, store: c.Store}, ocispec.Descriptor{Digest: c.Digest}
	default:
		if cache := j.inlineHere(ctx, c.Ref); cache != nil {
			j.use(cache, ownWell{j})
			return nil
		}
		if c.Here {
			return nil // it has no cache in it
		}
		if from, root, err = j.remote(ctx, c.Ref); err != nil {
			return err
		}
	}
	cache, err := cacheio.Read(ctx, from, root)
	if err == nil {
		j.use(cache, from)
	}
	return err
}

func (j *Job) use(cache *cacheio.Cache, from wellspring) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.imports = append(j.imports, imported{cache, from})
}

// inlineHere is the cache inside an image that is here, nil for none.
func (j *Job) inlineHere(ctx context.Context, ref string) *cacheio.Cache {
	img, err := j.solver.Store.Resolve(ctx, ImageRequest{Ref: ref, Local: true}, nil)
	if err != nil {
		return nil
	}
	if cache, err := cacheio.Read(ctx, ownWell{j}, img.Manifest); err == nil && cache.Len() > 0 {
		return cache
	}
	return nil
}

// ownWell is the daemon's store.
type ownWell struct{ job *Job }

func (w ownWell) Document(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	return w.job.stored(ctx, d, limit)
}

func (w ownWell) keep(context.Context, ocispec.Descriptor) error { return nil }

// remote finds the manifest or index of a name at its registry.
func (j *Job) remote(ctx context.Context, ref string) (wellspring, ocispec.Descriptor, error) {
	r, err := j.request(ctx, ImageRequest{Ref: ref})
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	d, data, err := j.solver.Store.Document(ctx, r)
	return &remoteWell{job: j, request: r, first: d.Digest, data: data}, d, err
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
	if err := d.Digest.Validate(); err != nil { // what it names may be anything
		return nil, fault.New(fault.Invalid, "%q is no digest: %w", d.Digest, err)
	}
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

// openWell is a place that has blobs by their digests alone.
type openWell struct {
	job  *Job
	open func(context.Context, digest.Digest) (io.ReadCloser, error)
}

func (w *openWell) Document(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	r, err := w.open(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readAll(r, d, limit)
}

func (w *openWell) keep(ctx context.Context, d ocispec.Descriptor) error {
	r, err := w.open(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	return w.job.solver.Store.PutBlob(ctx, d, r)
}

// recallImported finds a vertex in the caches that were imported. The layers
// need not be anywhere: then the output is for making keys of.
func (j *Job) recallImported(ctx context.Context, v *vertex, key digest.Digest, read bool) (outputs []*output, exact digest.Digest) {
	j.mu.Lock()
	imports := j.imports
	j.mu.Unlock()
	for _, in := range imports {
		outputs, exact = make([]*output, v.results()), key
		for i := range outputs {
			r, ok := in.cache.Lookup(outputKey(key, i))
			if !ok {
				r, ok = j.kin(ctx, in.cache, v, i, read)
			}
			if !ok {
				outputs = nil
				break
			}
			stack := stackOf(r.Layers)
			j.doubt(stack)
			outputs[i] = &output{layers: stack, key: outputKey(key, i), again: func(ctx context.Context) (*output, error) { return j.remake(ctx, v, i) }}
			if r.Exact != "" {
				exact = r.Exact
			}
			if r.Blobs {
				j.offer(outputs[i].layers, func(ctx context.Context, l Layer) error { return in.from.keep(ctx, l.Blob) })
			}
		}
		if outputs != nil {
			return outputs, exact
		}
	}
	return nil, ""
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

// settle notes that layers are here, and remembers what was found elsewhere and
// is here by that.
func (j *Job) settle(ctx context.Context, layers []Layer) error {
	var due, rest []awaited
	j.mu.Lock()
	for _, l := range layers {
		j.here[l.Chain] = true
	}
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
		j.solver.cache.add(a.key, a.v.name, a.v.recordType(), j.honest(ctx, a.outputs), j.options.Epoch)
	}
	return nil
}

package build

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// output is a result of a vertex: a chain of layers, or a directory of files
// that came from outside.
type output struct {
	layers []Layer // the lowest first; none for an empty tree
	dir    string  // if not "", the files are there
	// shelved says that the files of dir are only ever replaced, and may be linked.
	shelved bool
	key     digest.Digest

	// again makes it anew when its layers cannot be had; nil if they can.
	again func(context.Context) (*output, error)
	facts map[string]string // of a source, how it was
}

// chain names the topmost layer, "" for none.
func (o *output) chain() digest.Digest {
	if o == nil || len(o.layers) == 0 {
		return ""
	}
	return o.layers[len(o.layers)-1].Chain
}

// Result is what a definition came to.
type Result struct {
	job *Job

	mu     sync.Mutex
	output *output
}

// Open opens the result's files to read.
func (r *Result) Open(ctx context.Context) (Tree, error) {
	o, err := r.ready(ctx)
	if err != nil {
		return nil, err
	}
	return r.job.solver.open(ctx, o)
}

// ready has the result's files here.
func (r *Result) ready(ctx context.Context) (*output, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, err := r.job.ready(ctx, r.output)
	if err == nil {
		r.output = o
	}
	return o, err
}

// Layers are those of the result, the lowest first.
func (r *Result) Layers() []Layer {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.layers
}

// Fetch has the layers here, unpacked and as blobs, and returns them as Layers
// does. epoch is that of the image that they are for.
func (r *Result) Fetch(ctx context.Context, epoch time.Time) ([]Layer, error) {
	if r == nil {
		return nil, nil
	}
	o, err := r.ready(ctx)
	if err != nil {
		return nil, err
	}
	blobs, err := r.job.blobs(ctx, o.layers, epoch)
	if err != nil {
		return nil, err
	}
	layers := slices.Clone(o.layers)
	for i := range layers {
		layers[i].Blob = blobs[i]
	}
	return layers, nil
}

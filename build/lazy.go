package build

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

// Layers of an output need not be here: of a base image, of a cache that was
// imported, of a merge. What they are is known, and so keys can be made of them;
// they are fetched when a step stands on them, files are read, or an image is
// made. The job knows where each can be had.

// origin is where a layer that is not here can be had. It sees to it that the
// layer's blob is in the daemon's store.
type origin func(ctx context.Context, l Layer) error

// errNowhere is that of a layer that is neither here nor anywhere else.
var errNowhere = fault.New(fault.NotFound, "a layer is in no cache any more")

// offer notes where the layers can be had, unless that is known.
func (j *Job) offer(layers []Layer, from origin) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range layers {
		if j.origins[l.Chain] == nil {
			j.origins[l.Chain] = from
		}
	}
}

func (j *Job) origin(chain digest.Digest) origin {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.origins[chain]
}

// madeOn is the chain below where a layer was made, below being where it is now.
func (l Layer) madeOn(below digest.Digest) digest.Digest {
	if l.MadeOn != nil {
		return *l.MadeOn
	}
	return below
}

// blob has a layer's blob in the daemon's store, and describes it.
func (j *Job) blob(ctx context.Context, below digest.Digest, l Layer, epoch time.Time) (ocispec.Descriptor, error) {
	made := l.madeOn(below)
	d, err := j.solver.Store.LayerBlob(ctx, made, l, epoch)
	if err == nil || ctx.Err() != nil {
		return d, err
	}
	for _, chain := range []digest.Digest{l.Chain, snapshot.ChainID(made, l.DiffID)} {
		from := j.origin(chain)
		if from == nil {
			continue
		}
		if err := from(ctx, l); err != nil {
			return d, err
		}
		return j.solver.Store.LayerBlob(ctx, made, l, epoch)
	}
	return d, errors.Join(errNowhere, err)
}

// blobs are those of an output's layers.
func (j *Job) blobs(ctx context.Context, layers []Layer, epoch time.Time) ([]ocispec.Descriptor, error) {
	placed := make([]Placed, len(layers))
	for i, l := range layers {
		placed[i] = Placed{l.madeOn(belowOf(layers, i)), l}
	}
	list, err := j.solver.Store.LayerBlobs(ctx, placed, epoch)
	if ctx.Err() != nil {
		return list, err
	}
	if err == nil {
		sure := true
		for i, l := range layers {
			sure = sure && j.isSure(list[i].Digest, l.DiffID)
		}
		if sure {
			return list, nil
		}
	}
	list = make([]ocispec.Descriptor, len(layers))
	g, ctx := errgroup.WithContext(ctx)
	for i, l := range layers {
		g.Go(func() (err error) {
			list[i], err = j.sureBlob(ctx, belowOf(layers, i), l, epoch)
			return err
		})
	}
	return list, g.Wait()
}

func belowOf(layers []Layer, i int) digest.Digest {
	if i == 0 {
		return ""
	}
	return layers[i-1].Chain
}

// bring has the layers here, unpacked.
func (j *Job) bring(ctx context.Context, layers []Layer) error {
	top := layers[len(layers)-1].Chain
	there, err := j.has(ctx, top)
	if err != nil {
		return err
	}
	if there {
		return j.settle(ctx, layers)
	}
	missing := len(layers) - 1 // the lowest that is missing
	for ; missing > 0; missing-- {
		if there, err = j.has(ctx, layers[missing-1].Chain); err != nil {
			return err
		}
		if there {
			break
		}
	}
	blobs, list := make([]ocispec.Descriptor, len(layers)), slices.Clone(layers)
	g, fetching := errgroup.WithContext(ctx)
	for i := missing; i < len(layers); i++ {
		g.Go(func() (err error) {
			blobs[i], err = j.blob(fetching, belowOf(layers, i), layers[i], j.options.Epoch)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := missing; i < len(layers); i++ {
		list[i].Blob = blobs[i]
	}
	if err := j.solver.Store.Unpack(ctx, list); err != nil {
		return err
	}
	j.believe(list[missing:])
	return j.settle(ctx, layers)
}

// has tells whether a chain is here. It stays while the builder has it.
func (j *Job) has(ctx context.Context, chain digest.Digest) (bool, error) {
	j.mu.Lock()
	here := j.here[chain]
	j.mu.Unlock()
	if here {
		return true, nil
	}
	there, err := j.solver.Store.Has(ctx, chain)
	if there {
		j.mu.Lock()
		j.here[chain] = true
		j.mu.Unlock()
	}
	return there, err
}

// ready has an output's files here. When some of its layers are to be had nowhere
// it is made again, and may come to others.
func (j *Job) ready(ctx context.Context, o *output) (*output, error) {
	if o.dir != "" || len(o.layers) == 0 {
		return o, nil
	}
	err := j.bring(ctx, o.layers)
	if err == nil || o.again == nil || ctx.Err() != nil {
		return o, err
	}
	return o.again(ctx)
}

// readyAll does so with those that only selects, and tells whether one became
// another.
func (j *Job) readyAll(ctx context.Context, inputs []*output, only func(i int) bool) (list []*output, changed bool, err error) {
	list = slices.Clone(inputs)
	g, ctx := errgroup.WithContext(ctx)
	for i, o := range inputs {
		if only(i) {
			g.Go(func() (err error) {
				list[i], err = j.ready(ctx, o)
				return err
			})
		}
	}
	err = g.Wait()
	for i := range list {
		changed = changed || err == nil && list[i].chain() != inputs[i].chain()
	}
	return list, changed, err
}

// remake solves a vertex whose result was found, and cannot be had: with nothing
// that was imported, and on inputs that are here.
func (j *Job) remake(ctx context.Context, v *vertex, i int) (*output, error) {
	outputs, err := j.onceIn(ctx, j.remade, v.digest, func() ([]*output, error) {
		inputs, err := j.inputs(ctx, v)
		if err != nil {
			return nil, err
		}
		if inputs, _, err = j.readyAll(ctx, inputs, all); err != nil {
			return nil, err
		}
		return j.report(ctx, v, func() ([]*output, bool, error) { return j.perform(ctx, v, inputs, false) })
	})
	if err != nil {
		return nil, err
	}
	return pick(outputs, edge{v, i})
}

func all(int) bool { return true }

// succeeding has something succeed once.
type succeeding struct {
	mu   sync.Mutex
	done bool
}

func (s *succeeding) do(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return nil
	}
	err := f()
	s.done = err == nil
	return err
}

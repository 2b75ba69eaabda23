package build

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build/cacheio"
)

// Compression is what layers are to be compressed by when they are handed out.
type Compression struct {
	Kind  string // gzip, zstd, uncompressed; "" leaves what is compressed as it is, and is gzip for the rest
	Level int    // 0 for the usual one
	Force bool   // also what is compressed otherwise
}

// solved is a vertex with what it came to, for an export of the cache.
type solvedAs struct {
	v       *vertex
	key     keys
	outputs []*output
}

// Export lists what the job solved or found, with the layers that are to be
// handed out: of all of it, or else those that the results have.
func (j *Job) Export(ctx context.Context, results []*Result, everything bool, c Compression) ([]cacheio.Record, error) {
	wanted := map[digest.Digest]bool{} // DiffIDs
	for _, r := range results {
		for _, l := range r.Layers() {
			wanted[l.DiffID] = true
		}
	}
	j.mu.Lock()
	list := slices.Clone(j.solvedAs)
	j.mu.Unlock()
	x := &exporting{job: j, how: c, done: map[digest.Digest]ocispec.Descriptor{}, told: map[digest.Digest]bool{}}
	with := func(o *output) bool {
		return everything || !slices.ContainsFunc(o.layers, func(l Layer) bool { return !wanted[l.DiffID] })
	}
	for _, s := range list {
		for i, o := range s.outputs {
			if err := x.add(ctx, s.key, i, o, with(o)); err != nil {
				return nil, err
			}
		}
	}
	k := &relating{exporting: x, with: with, solved: map[digest.Digest][]*output{}, related: map[edgeName][]int{}, contents: map[digest.Digest]int{}}
	for _, s := range list {
		k.solved[s.v.digest] = s.outputs
	}
	for _, s := range list {
		for i := range s.outputs {
			if _, err := k.relate(ctx, edge{s.v, i}); err != nil {
				return nil, err
			}
		}
	}
	return x.records, nil
}

// Known lists the same by the names of the layers alone.
func (j *Job) Known(ctx context.Context) ([]cacheio.Record, error) {
	j.mu.Lock()
	list := slices.Clone(j.solvedAs)
	j.mu.Unlock()
	x := &exporting{job: j, told: map[digest.Digest]bool{}}
	for _, s := range list {
		for i, o := range s.outputs {
			if err := x.add(ctx, s.key, i, o, false); err != nil {
				return nil, err
			}
		}
	}
	// Steps end in any order, and the image that has this is the same each time.
	slices.SortFunc(x.records, func(a, b cacheio.Record) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return x.records, nil
}

type exporting struct {
	job     *Job
	how     Compression
	done    map[digest.Digest]ocispec.Descriptor // by DiffID
	told    map[digest.Digest]bool
	records []cacheio.Record
}

func (x *exporting) add(ctx context.Context, k keys, i int, o *output, with bool) error {
	if len(o.layers) == 0 {
		return nil
	}
	r, err := x.record(ctx, o, with)
	if err != nil {
		return err
	}
	for _, key := range []digest.Digest{k.quick, k.exact} {
		if key == "" || x.told[outputKey(key, i)] {
			continue
		}
		if r.Key, r.Exact = outputKey(key, i), ""; key != k.exact {
			r.Exact = k.exact
		}
		x.told[r.Key] = true
		x.records = append(x.records, r)
	}
	return nil
}

// record is one without a key.
func (x *exporting) record(ctx context.Context, o *output, with bool) (cacheio.Record, error) {
	r := cacheio.Record{Blobs: with}
	for n, l := range o.layers {
		out := cacheio.Layer{DiffID: l.DiffID, Created: l.Created}
		if with {
			var err error
			out.Blob, err = x.blob(ctx, belowOf(o.layers, n), l)
			if errors.Is(err, errNowhere) { // known by its name alone
				return x.record(ctx, o, false)
			}
			if err != nil {
				return r, err
			}
		}
		r.Layers = append(r.Layers, out)
	}
	return r, nil
}

func (x *exporting) blob(ctx context.Context, below digest.Digest, l Layer) (ocispec.Descriptor, error) {
	if d, ok := x.done[l.DiffID]; ok {
		return d, nil
	}
	d, err := x.job.sureBlob(ctx, below, l, x.job.options.Epoch)
	if err != nil {
		return d, err
	}
	kind := x.how.Kind
	if plain := d.Digest == l.DiffID; plain && kind == "" {
		kind = "gzip"
	} else if !plain && !x.how.Force {
		kind = ""
	}
	if kind != "" {
		l.Blob = d
		if d, err = x.job.solver.Store.Compress(ctx, l, kind, x.how.Level); err != nil {
			return d, err
		}
	}
	x.done[l.DiffID] = d
	return d, nil
}

package build

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/build/cacheio"
	"github.com/tarehq/tare/build/foreign"
)

// relating adds to what is exported the records by which BuildKit finds the same: each
// has BuildKit's key of an operation, and links to the records of its inputs and of
// their content.
type relating struct {
	*exporting
	with     func(*output) bool // whether its layers are handed out
	solved   map[digest.Digest][]*output
	related  map[edgeName][]int
	contents map[digest.Digest]int
}

// edgeName names one of the results of a vertex.
type edgeName struct {
	vertex digest.Digest
	index  int
}

// put adds a record and returns its number.
func (k *relating) put(r cacheio.Record) int {
	k.records = append(k.records, r)
	return len(k.records) - 1
}

// relate lists the records of a result, none if BuildKit would not know it.
func (k *relating) relate(ctx context.Context, e edge) ([]int, error) {
	name := edgeName{e.digest, e.index}
	if list, ok := k.related[name]; ok {
		return list, nil
	}
	var list []int
	if s := e.op.GetSource(); s != nil {
		for _, key := range k.job.kinOfSource(ctx, e.vertex, s) {
			list = append(list, k.put(cacheio.Record{Key: foreign.Root(key, e.index)}))
		}
	} else if op, ok := foreign.Of(e.op); ok && e.index < len(k.solved[e.digest]) {
		links, err := k.inputs(ctx, e.vertex, op)
		if err != nil {
			return nil, err
		}
		if links != nil {
			r := cacheio.Record{}
			if o := k.solved[e.digest][e.index]; k.with(o) {
				if r, err = k.record(ctx, o, true); err != nil {
					return nil, err
				}
			}
			if !r.Blobs {
				r.Layers = nil // BuildKit has no use for names
			}
			r.Key, r.Links = foreign.Root(op.Digest, e.index), links
			list = []int{k.put(r)}
		}
	}
	k.related[name] = list
	return list, nil
}

// inputs are the links of an operation, nil if one of its inputs has none.
func (k *relating) inputs(ctx context.Context, v *vertex, op foreign.Operation) ([][]cacheio.Link, error) {
	links := make([][]cacheio.Link, len(op.Inputs))
	for i, in := range op.Inputs {
		below, err := k.relate(ctx, v.inputs[i])
		if err != nil {
			return nil, err
		}
		for _, n := range below {
			links[i] = append(links[i], cacheio.Link{Selector: in.Selector, Record: n})
		}
		if in.ByContent {
			if sum, _ := k.job.contentOf(ctx, v.inputs[i], in.Parts, true); sum != "" {
				n, ok := k.contents[sum]
				if !ok {
					n = k.put(cacheio.Record{Key: sum})
					k.contents[sum] = n
				}
				links[i] = append(links[i], cacheio.Link{Record: n})
			}
		}
		if len(links[i]) == 0 {
			return nil, nil
		}
	}
	return links, nil
}

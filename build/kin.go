package build

import (
	"context"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/build/cacheio"
	"github.com/tarehq/tare/build/foreign"
)

// kinship is one of the results of a vertex, in a cache of BuildKit's.
type kinship struct {
	cache  *cacheio.Cache
	vertex digest.Digest
	index  int
}

// kin finds a result in a cache that BuildKit wrote, by its keys. With read, the
// files that the vertex reads are here.
func (j *Job) kin(ctx context.Context, c *cacheio.Cache, v *vertex, index int, read bool) (cacheio.Record, bool) {
	if !c.Linked() || !j.options.Epoch.IsZero() { // BuildKit's layers have times of their own
		return cacheio.Record{}, false
	}
	records, _ := j.kinOf(ctx, c, v, index, read)
	for i := range records {
		if r, ok := c.Result(i); ok {
			return r, true
		}
	}
	return cacheio.Record{}, false
}

// kinOf lists the records of a result, and tells whether all was known for that.
func (j *Job) kinOf(ctx context.Context, c *cacheio.Cache, v *vertex, index int, read bool) (records map[int]bool, whole bool) {
	name := kinship{c, v.digest, index}
	j.mu.Lock()
	records, known := j.kins[name]
	j.mu.Unlock()
	if known {
		return records, true
	}
	records, whole = map[int]bool{}, true
	add := func(key digest.Digest, inputs []cacheio.Input) {
		for _, i := range c.Match(foreign.Root(key, index), inputs) {
			records[i] = true
		}
	}
	if s := v.op.GetSource(); s != nil {
		for _, key := range j.kinOfSource(ctx, v, s) {
			add(key, nil)
		}
	} else if op, ok := foreign.Of(v.op); ok {
		inputs := make([]cacheio.Input, len(op.Inputs))
		for i, in := range op.Inputs {
			from := v.inputs[i]
			below, known := j.kinOf(ctx, c, from.vertex, from.index, read)
			inputs[i] = cacheio.Input{Records: below, Selector: in.Selector}
			whole = whole && known
			if in.ByContent {
				inputs[i].Content, known = j.contentOf(ctx, from, in.Parts, read)
				whole = whole && known
			}
		}
		add(op.Digest, inputs)
	}
	if whole {
		j.mu.Lock()
		j.kins[name] = records
		j.mu.Unlock()
	}
	return records, whole
}

// contentOf is what BuildKit calls the content of an input, "" if it cannot be told.
// Layers are not fetched for that.
func (j *Job) contentOf(ctx context.Context, from edge, parts []foreign.Part, read bool) (sum digest.Digest, known bool) {
	o := j.solvedOutput(from.digest, from.index)
	if o == nil || o.dir == "" && !read {
		return "", false
	}
	if there, err := j.solver.Store.Has(ctx, o.chain()); o.dir == "" && o.chain() != "" && (err != nil || !there) {
		return "", false
	}
	t, err := j.solver.open(ctx, o)
	if err != nil {
		return "", false
	}
	defer t.Close()
	if sum, known, err = foreign.Content(ctx, t.openPath, parts); err != nil || !known {
		return "", err == nil // nobody will know
	}
	return foreign.Root(sum, -1), true
}

// solvedOutput is what a result of a vertex came to, nil if it has not.
func (j *Job) solvedOutput(vertex digest.Digest, index int) *output {
	j.mu.Lock()
	s := j.vertices[vertex]
	j.mu.Unlock()
	if s == nil {
		return nil
	}
	select {
	case <-s.done:
	default:
		return nil
	}
	if s.err != nil || index >= len(s.outputs) {
		return nil
	}
	return s.outputs[index]
}

// kinOfSource are the keys of an image; of other sources it is the content that counts.
func (j *Job) kinOfSource(ctx context.Context, v *vertex, s *pb.SourceOp) (keys []digest.Digest) {
	ref, found := strings.CutPrefix(s.Identifier, "docker-image://")
	if !found {
		return nil
	}
	p := v.platform()
	img, err := j.Resolve(ctx, "", ImageRequest{Ref: ref, Platform: p}) // which was done for the vertex
	if err != nil {
		return nil
	}
	keys = append(keys, foreign.Image(img.Target, p), foreign.Image(img.Manifest.Digest, p))
	if n := len(img.Layers); n > 0 {
		keys = append(keys, foreign.Layers(img.Layers[n-1].Chain))
	}
	return keys
}

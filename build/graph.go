package build

import (
	"math"
	"slices"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
)

// maxVertices bounds a definition: it is a client's, or a front end's that
// came from a registry.
const maxVertices = 50_000

// vertex is one operation of a definition.
type vertex struct {
	digest digest.Digest
	op     *pb.Op
	meta   *pb.OpMetadata
	inputs []edge
	name   string
}

// edge is one of the results of a vertex.
type edge struct {
	*vertex
	index int
}

// decode reads a definition, whose last operation only names the result. The
// vertices come in an order in which each follows its inputs; there are no rings,
// as a vertex is named by what it says. The edge's vertex is nil for an empty
// result, "FROM scratch" and nothing else.
func decode(def *pb.Definition) (result edge, order []*vertex, err error) {
	if len(def.GetDef()) == 0 {
		return edge{}, nil, nil
	}
	if len(def.Def) > maxVertices {
		return edge{}, nil, fault.New(fault.Invalid, "the build has %d operations, and at most %d are taken", len(def.Def), maxVertices)
	}
	ops := make(map[digest.Digest]*pb.Op, len(def.Def))
	var last digest.Digest
	for _, data := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(data); err != nil {
			return edge{}, nil, fault.New(fault.Invalid, "the build's definition is damaged: %w", err)
		}
		last = digest.FromBytes(data)
		ops[last] = &op
	}
	d := decoder{ops: ops, meta: def.Metadata, done: map[digest.Digest]*vertex{}, open: map[digest.Digest]bool{}}
	end := ops[last]
	if end.Op != nil || len(end.Inputs) != 1 {
		return edge{}, nil, fault.New(fault.Invalid, "the build's definition does not end with its result")
	}
	result, err = d.edge(end.Inputs[0])
	return result, d.order, err
}

type decoder struct {
	ops   map[digest.Digest]*pb.Op
	meta  map[string]*pb.OpMetadata
	done  map[digest.Digest]*vertex
	open  map[digest.Digest]bool
	order []*vertex
}

func (d *decoder) edge(in *pb.Input) (edge, error) {
	v, err := d.vertex(digest.Digest(in.Digest))
	if err != nil {
		return edge{}, err
	}
	if in.Index < 0 || in.Index > math.MaxInt16 {
		return edge{}, fault.New(fault.Invalid, "the operation %s has no result %d", in.Digest, in.Index)
	}
	return edge{v, int(in.Index)}, nil
}

func (d *decoder) vertex(name digest.Digest) (*vertex, error) {
	if v := d.done[name]; v != nil {
		return v, nil
	}
	op := d.ops[name]
	if op == nil || d.open[name] {
		return nil, fault.New(fault.Invalid, "the build's definition lacks the operation %s", name)
	}
	d.open[name] = true
	v := &vertex{digest: name, op: op, meta: d.meta[name.String()]}
	if err := able(v.meta); err != nil {
		return nil, err
	}
	for _, in := range op.Inputs {
		e, err := d.edge(in)
		if err != nil {
			return nil, err
		}
		v.inputs = append(v.inputs, e)
	}
	v.name = describe(v)
	d.done[name] = v
	d.order = append(d.order, v)
	return v, nil
}

// describe is what a user reads of a vertex: what the front end calls it, or
// else what it does.
func describe(v *vertex) string {
	if name := v.meta.GetDescription()["llb.customname"]; name != "" {
		return name
	}
	switch op := v.op.Op.(type) {
	case *pb.Op_Source:
		return op.Source.Identifier
	case *pb.Op_Exec:
		return joinWords(op.Exec.Meta.GetArgs())
	case *pb.Op_File:
		return fileName(op.File)
	case *pb.Op_Merge:
		return "merge"
	case *pb.Op_Diff:
		return "diff"
	case *pb.Op_Build:
		return "build"
	}
	return "unknown operation"
}

// digests names the vertices that it stands on, each once.
func (v *vertex) digests() (list []digest.Digest) {
	for _, in := range v.inputs {
		if !slices.Contains(list, in.digest) {
			list = append(list, in.digest)
		}
	}
	return list
}

// results is how many results the vertex has.
func (v *vertex) results() int {
	n := 0
	switch op := v.op.Op.(type) {
	case *pb.Op_Exec:
		for _, m := range op.Exec.Mounts {
			n = max(n, int(m.Output)+1)
		}
	case *pb.Op_File:
		for _, a := range op.File.Actions {
			n = max(n, int(a.Output)+1)
		}
	}
	return min(max(n, 1), maxVertices)
}

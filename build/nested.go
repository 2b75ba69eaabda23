package build

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// A build operation is a definition that lies in a file of another's result.

// Bounds of a definition in a file: it is anybody's.
const (
	maxDefinition = 16 << 20 // bytes, as of a message
	maxInner      = 8        // definitions in results of one another
)

// nest is a definition on its way that lies in a result of another. It has vertices
// of its own: none of them waits for one that waits for it.
type nest struct {
	vertices map[digest.Digest]*solving
	builds   []digest.Digest // the operations that it is in, the outermost first
}

type nestKey struct{}

func nestOf(ctx context.Context) nest {
	n, _ := ctx.Value(nestKey{}).(nest)
	return n
}

// verticesOf are those that a vertex solved under ctx belongs to.
func (j *Job) verticesOf(ctx context.Context) map[digest.Digest]*solving {
	if n := nestOf(ctx); n.vertices != nil {
		return n.vertices
	}
	return j.vertices
}

// nested solves the definition that a build operation has as an input.
func (j *Job) nested(ctx context.Context, v *vertex, op *pb.BuildOp, inputs []*output) (*output, error) {
	if op.GetBuilder() != int64(pb.LLBBuilder) {
		return nil, fault.New(fault.NotImplemented, "a build operation has a builder of its own: only definitions are built")
	}
	in := op.Inputs[pb.LLBDefinitionInput]
	if in == nil || in.Input < 0 || int(in.Input) >= len(inputs) {
		return nil, fault.New(fault.Invalid, "a build operation has no input with a definition")
	}
	n := nestOf(ctx)
	if slices.Contains(n.builds, v.digest) {
		return nil, fault.New(fault.Invalid, "a build operation builds itself")
	}
	if len(n.builds) >= maxInner {
		return nil, fault.New(fault.Invalid, "the build operation %s is in the results of %d others, each in that of the one before: that is too many", v.digest, len(n.builds))
	}
	name := pb.LLBDefaultDefinitionFile
	if other := op.Attrs[pb.AttrLLBDefinitionFilename]; other != "" {
		name = other
	}
	def, err := j.definitionIn(ctx, inputs[in.Input], name)
	if err != nil {
		return nil, err
	}
	inner := nest{map[digest.Digest]*solving{}, append(slices.Clone(n.builds), v.digest)}
	r, err := j.Solve(context.WithValue(ctx, nestKey{}, inner), def)
	if err != nil {
		return nil, err
	}
	return r.output, nil
}

// definitionIn reads a definition from a file of an output.
func (j *Job) definitionIn(ctx context.Context, o *output, name string) (*pb.Definition, error) {
	o, err := j.ready(ctx, o)
	if err != nil {
		return nil, err
	}
	t, err := j.solver.open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	place, err := t.openPath(name, true)
	if err != nil {
		return nil, err
	}
	defer place.Close()
	if info, err := place.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fault.New(fault.Invalid, "the definition %s of a build operation is no regular file", name))
	}
	f, err := os.OpenFile(fdPath(place), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDefinition+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxDefinition {
		return nil, fault.New(fault.Invalid, "the definition %s of a build operation has more than %d bytes", name, maxDefinition)
	}
	def := &pb.Definition{}
	if err := def.UnmarshalVT(data); err != nil {
		return nil, fault.New(fault.Invalid, "the definition %s of a build operation is damaged: %w", name, err)
	}
	return def, nil
}

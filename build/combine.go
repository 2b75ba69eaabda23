package build

import (
	"context"
	"slices"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

// Merge and diff are work on lists of layers. Layers that come to lie on others
// are made there, out of the same blobs, when something needs their files.

// combine solves a vertex that makes no files of its own. It tells whether the
// result is here already.
func (j *Job) combine(ctx context.Context, v *vertex, inputs []*output) (outputs []*output, cached bool, err error) {
	switch op := v.op.Op.(type) {
	case *pb.Op_Merge:
		o, err := merge(op.Merge, inputs)
		if err != nil {
			return nil, false, err
		}
		outputs = []*output{o}
	case *pb.Op_Diff:
		o, err := j.diff(ctx, op.Diff, inputs)
		if err != nil {
			return nil, false, err
		}
		outputs = []*output{o}
	case *pb.Op_Passthrough:
		for _, n := range op.Passthrough.GetOutputs() {
			if n < 0 || int(n) >= len(inputs) {
				return nil, false, fault.New(fault.Invalid, "a passthrough has no input %d", n)
			}
			outputs = append(outputs, inputs[n])
		}
		return outputs, true, nil
	}
	o := outputs[0]
	o.again = func(ctx context.Context) (*output, error) { return j.remake(ctx, v, 0) }
	if o.chain() != "" {
		cached, err = j.has(ctx, o.chain())
	}
	return outputs, cached, err
}

// input is one of a vertex's, or an empty tree; only layers can be combined.
func input(inputs []*output, n int64) (*output, error) {
	if n == int64(pb.Empty) {
		return &output{}, nil
	}
	if n < 0 || int(n) >= len(inputs) {
		return nil, fault.New(fault.Invalid, "an operation has no input %d", n)
	}
	if inputs[n].dir != "" {
		return nil, fault.New(fault.NotImplemented, "files that came from outside cannot be merged: copy them to an empty tree")
	}
	return inputs[n], nil
}

// merge puts the layers of the inputs on each other.
func merge(op *pb.MergeOp, inputs []*output) (*output, error) {
	if len(op.GetInputs()) < 2 {
		return nil, fault.New(fault.Invalid, "a merge needs at least two inputs")
	}
	var merged []Layer
	for _, m := range op.Inputs {
		if m == nil {
			return nil, fault.New(fault.Invalid, "a merge has an input that is nothing")
		}
		in, err := input(inputs, m.Input)
		if err != nil {
			return nil, err
		}
		merged = restack(merged, in.layers, "")
	}
	return &output{layers: merged, key: keyOfChain(merged)}, nil
}

// restack puts layers, the lowest of which lies on the chain below, on others.
func restack(base, layers []Layer, below digest.Digest) []Layer {
	stack := slices.Clone(base)
	for _, l := range layers {
		on := digest.Digest("")
		if len(stack) > 0 {
			on = stack[len(stack)-1].Chain
		}
		made := l.madeOn(below)
		below = l.Chain
		if l.Chain = snapshot.ChainID(on, l.DiffID); made != on {
			l.MadeOn = &made
		} else {
			l.MadeOn = nil
		}
		stack = append(stack, l)
	}
	return stack
}

func keyOfChain(layers []Layer) digest.Digest {
	if len(layers) == 0 {
		return emptyKey
	}
	return layers[len(layers)-1].Chain
}

// diff is what upper has beyond lower: its own layers where lower's lie below
// them, or else a layer that is made of the two trees.
func (j *Job) diff(ctx context.Context, op *pb.DiffOp, inputs []*output) (*output, error) {
	if op.GetLower() == nil || op.GetUpper() == nil {
		return nil, fault.New(fault.Invalid, "a diff needs what is below and what is above")
	}
	lower, err := input(inputs, op.Lower.Input)
	if err != nil {
		return nil, err
	}
	upper, err := input(inputs, op.Upper.Input)
	if err != nil {
		return nil, err
	}
	n := len(lower.layers)
	if n <= len(upper.layers) && (n == 0 || upper.layers[n-1].Chain == lower.chain()) {
		layers := restack(nil, upper.layers[n:], lower.chain())
		return &output{layers: layers, key: keyOfChain(layers)}, nil
	}
	if lower, err = j.ready(ctx, lower); err != nil {
		return nil, err
	}
	if upper, err = j.ready(ctx, upper); err != nil {
		return nil, err
	}
	l, err := j.solver.Store.Difference(ctx, lower.chain(), upper.chain())
	if err != nil {
		return nil, err
	}
	if len(upper.layers) > 0 {
		l.Created = upper.layers[len(upper.layers)-1].Created
	}
	return &output{layers: []Layer{l}, key: l.Chain}, nil
}

package build

import (
	"context"
	"errors"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
)

// keptMount is a mount beside the root of which what the step leaves is a result.
type keptMount struct {
	index int
	base  *output
	id    string // of the tree; "" if the step cannot change it
}

// keep gives the step a tree to write to, of which its changes are kept.
func (s *step) keep(ctx context.Context, m *pb.Mount, in *output) (*tree, error) {
	if in.dir != "" {
		return nil, fault.New(fault.NotImplemented, "files of the client's cannot be changed in place: copy them to a tree first")
	}
	k := keptMount{index: int(m.Output), base: in}
	if m.Readonly {
		s.kept = append(s.kept, k)
		return s.job.solver.openAs(ctx, in, unix.MOUNT_ATTR_NODEV, s.users.shown())
	}
	k.id = "build-" + idgen.New()[:32]
	tree, err := s.job.solver.Store.Prepare(ctx, k.id, in.chain())
	if err != nil {
		return nil, err
	}
	s.kept = append(s.kept, k)
	return mountedAs(tree, unix.MOUNT_ATTR_NODEV, s.users.shown())
}

// results are those of a step that has ended, of which the root's is still missing
// (root is its place, -1 for none). Of mounts that are no trees they are empty.
func (s *step) results(ctx context.Context) (outputs []*output, root int, err error) {
	outputs, root = make([]*output, s.v.results()), -1
	for i := range outputs {
		outputs[i] = &output{key: emptyKey}
	}
	for _, m := range s.op.Mounts {
		if m.Dest == pb.RootMount && m.Output >= 0 && int(m.Output) < len(outputs) {
			root = int(m.Output)
		}
	}
	for len(s.kept) > 0 {
		k := s.kept[0]
		s.kept = s.kept[1:]
		o := k.base
		if k.id != "" {
			if o, err = s.job.seal(ctx, k.id, k.base); err != nil {
				return nil, 0, errors.Join(err, s.discardKept(ctx))
			}
		}
		outputs[k.index] = o
	}
	return outputs, root, nil
}

// discardKept drops the trees of a step that failed.
func (s *step) discardKept(ctx context.Context) (err error) {
	for _, k := range s.kept {
		if k.id != "" {
			err = errors.Join(err, s.job.solver.Store.Discard(context.WithoutCancel(ctx), k.id))
		}
	}
	s.kept = nil
	return err
}

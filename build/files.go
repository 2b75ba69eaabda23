package build

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
)

// fileName describes a file operation.
func fileName(op *pb.FileOp) string {
	var words []string
	for _, a := range op.GetActions() {
		switch x := a.Action.(type) {
		case *pb.FileAction_Copy:
			words = append(words, "copy "+x.Copy.Src+" "+x.Copy.Dest)
		case *pb.FileAction_Mkfile:
			words = append(words, "mkfile "+x.Mkfile.Path)
		case *pb.FileAction_Mkdir:
			words = append(words, "mkdir "+x.Mkdir.Path)
		case *pb.FileAction_Rm:
			words = append(words, "rm "+x.Rm.Path)
		case *pb.FileAction_Symlink:
			words = append(words, "symlink "+x.Symlink.Newpath)
		}
	}
	return strings.Join(words, ", ")
}

// filing is one file operation: trees that its actions work on, one after the
// other. An action's input is one of the operation's, or, counted on from those,
// the tree that an earlier action left.
type filing struct {
	job    *Job
	op     *pb.FileOp
	inputs []*output
	trees  []*workTree // by action
}

// workTree is a tree that actions change.
type workTree struct {
	id   string
	base *output
	tree *tree

	links linking // of it, without what is mounted
}

// files carries a file operation out.
func (j *Job) files(ctx context.Context, op *pb.FileOp, inputs []*output) (outputs []*output, err error) {
	f := &filing{job: j, op: op, inputs: inputs}
	err = inPlace(j.solver.placesDir(), func() error {
		outputs, err = f.run(ctx)
		return err
	})
	return outputs, err
}

func (f *filing) run(ctx context.Context) (outputs []*output, err error) {
	op := f.op
	defer func() {
		if e := f.drop(context.WithoutCancel(ctx)); err == nil {
			err = e
		}
	}()
	kept := map[int]*workTree{}
	for i, a := range op.Actions {
		t, err := f.target(ctx, a)
		if err != nil {
			return nil, err
		}
		f.trees = append(f.trees, t)
		if err := f.act(ctx, t, a); err != nil {
			return nil, fmt.Errorf("failed to %s: %w", fileName(&pb.FileOp{Actions: op.Actions[i : i+1]}), err)
		}
		if a.Output >= 0 {
			if int(a.Output) > len(op.Actions) {
				return nil, fault.New(fault.Invalid, "a file operation has no result %d", a.Output)
			}
			kept[int(a.Output)] = t
		}
	}
	outputs = make([]*output, len(kept))
	for i := range outputs {
		t := kept[i]
		if t == nil {
			return nil, fault.New(fault.Invalid, "a file operation lacks its result %d", i)
		}
		if outputs[i], err = f.seal(ctx, t); err != nil {
			return nil, err
		}
	}
	return outputs, nil
}

// target is the tree that an action changes: a new one on an input, or that of an
// earlier action, which nobody else may go on with.
func (f *filing) target(ctx context.Context, a *pb.FileAction) (*workTree, error) {
	n := int(a.Input) - len(f.inputs)
	switch {
	case n >= len(f.trees):
		return nil, fault.New(fault.Invalid, "an action of a file operation comes before its input")
	case n >= 0:
		t := f.trees[n]
		f.trees[n] = nil
		if t == nil {
			return nil, fault.New(fault.NotImplemented, "two actions of a file operation go on from one tree")
		}
		return t, nil
	}
	base := &output{}
	if a.Input >= 0 {
		base = f.inputs[a.Input]
	}
	if base.dir != "" {
		return nil, fault.New(fault.NotImplemented, "files that came from outside cannot be changed in place: copy them to an empty tree")
	}
	t := &workTree{id: "build-" + idgen.New()[:32], base: base}
	m, err := f.job.solver.Store.Prepare(ctx, t.id, base.chain())
	if err != nil {
		return nil, err
	}
	t.links.mount = m.Bare()
	t.links.mount.Upper, t.links.mount.Work = m.Upper, m.Work // of an empty tree, too
	if t.tree, err = mounted(m.Bare()); err == nil {
		if err = t.tree.attach(f.job.solver.placesDir()); err == nil {
			return t, nil
		}
		t.tree.Close()
	}
	return nil, errors.Join(err, f.job.solver.Store.Discard(context.WithoutCancel(ctx), t.id))
}

// seal makes a layer of a tree.
func (f *filing) seal(ctx context.Context, t *workTree) (*output, error) {
	for i, other := range f.trees {
		if other == t {
			f.trees[i] = nil
		}
	}
	err := t.tree.Close()
	if err == nil {
		err = t.links.fill(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, f.job.solver.Store.Discard(context.WithoutCancel(ctx), t.id))
	}
	return f.job.seal(ctx, t.id, t.base)
}

// drop lets the trees go that became nothing.
func (f *filing) drop(ctx context.Context) (err error) {
	for _, t := range f.trees {
		if t != nil {
			err = errors.Join(err, t.tree.Close(), f.job.solver.Store.Discard(ctx, t.id))
		}
	}
	return err
}

func (f *filing) act(ctx context.Context, t *workTree, a *pb.FileAction) error {
	switch x := a.Action.(type) {
	case *pb.FileAction_Mkdir:
		return f.mkdir(ctx, t, x.Mkdir)
	case *pb.FileAction_Mkfile:
		return f.mkfile(ctx, t, x.Mkfile)
	case *pb.FileAction_Copy:
		return f.copy(ctx, t, a, x.Copy)
	case *pb.FileAction_Symlink:
		return f.symlink(ctx, t, x.Symlink)
	case *pb.FileAction_Rm:
		return f.remove(t, x.Rm)
	}
	return fault.New(fault.NotImplemented, "the build has an action on files that is not known here")
}

// identity looks a name up in the users and groups of a tree.
func (f *filing) identity(ctx context.Context, t *workTree, n *pb.NamedUserOpt, who string) (spec.Identity, error) {
	var base *output
	if n.Input >= 0 && int(n.Input) < len(f.inputs) {
		base = f.inputs[n.Input]
	}
	if base == nil || base.dir != "" {
		base = t.base
	}
	m, err := f.job.solver.Store.View(ctx, base.chain())
	if err != nil {
		return spec.Identity{}, err
	}
	return lookUpUser(m.Trees(), who)
}

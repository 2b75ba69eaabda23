package bridge

import (
	"errors"

	"github.com/moby/buildkit/solver/errdefs"

	"github.com/tarehq/tare/build"
)

// failed tells the client what a step that failed stood on, so that it can make a
// container of that: the step's mounts, as they were before it ran.
func (a *Asked) failed(err error) error {
	var at *build.VertexError
	if !errors.As(err, &at) || at.Op == nil {
		return err
	}
	var inputs, mounts []string
	for _, in := range at.Inputs {
		ref, e := a.keep(&Solution{bridge: a.bridge, result: in})
		if e != nil {
			return err
		}
		inputs = append(inputs, ref.Id)
	}
	for _, m := range at.Op.GetExec().GetMounts() {
		id := ""
		if m.Input >= 0 && int(m.Input) < len(inputs) {
			id = inputs[m.Input]
		}
		mounts = append(mounts, id)
	}
	return errdefs.WithSolveError(errdefs.WithOp(err, at.Op, nil), nil, inputs, mounts)
}

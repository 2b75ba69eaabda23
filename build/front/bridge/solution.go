package bridge

import (
	"context"
	"sync"

	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/tarehq/tare/build"
)

// Solution is a result that is solved when somebody looks at it. It is a
// gateway.Reference.
type Solution struct {
	bridge     *Bridge
	definition *pb.Definition

	once   sync.Mutex
	result *build.Result
}

// Solved is the result, which is made at the first call.
func (r *Solution) Solved(ctx context.Context) (*build.Result, error) {
	r.once.Lock()
	defer r.once.Unlock()
	if r.result != nil {
		return r.result, nil
	}
	var err error
	r.result, err = r.bridge.Job.Solve(ctx, r.definition)
	return r.result, located(err, r.definition)
}

// Definition is what is solved.
func (r *Solution) Definition() *pb.Definition { return r.definition }

// Evaluate has the result made.
func (r *Solution) Evaluate(ctx context.Context) error {
	_, err := r.Solved(ctx)
	return err
}

func (r *Solution) ToState() (llb.State, error) {
	op, err := llb.NewDefinitionOp(r.definition)
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}

// open opens the result's files.
func (r *Solution) open(ctx context.Context) (build.Tree, error) {
	result, err := r.Solved(ctx)
	if err != nil {
		return nil, err
	}
	return result.Open(ctx)
}

// ReadFile reads a file of the result.
func (r *Solution) ReadFile(ctx context.Context, req gateway.ReadRequest) ([]byte, error) {
	t, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return readFile(t, "", req)
}

// StatFile describes a file of the result.
func (r *Solution) StatFile(ctx context.Context, req gateway.StatRequest) (*fstypes.Stat, error) {
	t, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return statFile(t, "", req)
}

// ReadDir lists a directory of the result.
func (r *Solution) ReadDir(ctx context.Context, req gateway.ReadDirRequest) ([]*fstypes.Stat, error) {
	t, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return readDir(t, "", req)
}

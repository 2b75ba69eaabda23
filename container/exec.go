package container

import (
	"context"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/session"
	"github.com/tarehq/tare/fault"
)

// Execs are the further processes of running containers. An exec belongs to a
// run: what is known of it is in memory, and in that of the supervising process
// from its start on, which tells it to the next daemon. Execs is safe for
// concurrent use.
type Execs struct {
	containers *Service
	sessions   *session.Table
}

func newExecs(s *Service) *Execs { return &Execs{containers: s, sessions: session.NewTable()} }

// Inspect tells of an exec; its result for some minutes after its end.
func (e *Execs) Inspect(ctx context.Context, execID string) (wire.ExecInspectResponse, error) {
	n, err := e.sessions.Find(execID)
	if err != nil {
		return wire.ExecInspectResponse{}, err
	}
	n.Settle(ctx)
	return n.Inspect(), nil
}

// Resize sets the size of an exec's terminal, in characters. Without a terminal
// there is none to set, which is no error.
func (e *Execs) Resize(ctx context.Context, execID string, height, width uint16) error {
	n, _, keeper, err := e.running(execID)
	if err != nil {
		return err
	}
	if !n.Running() {
		return fault.New(fault.Invalid, "exec process is not started")
	}
	if err := n.Made(ctx); err != nil { // a client tells the size as soon as it has asked for the start
		return err
	}
	if !n.Request.Tty {
		return nil
	}
	return keeper.Execs.Resize(ctx, execID, height, width)
}

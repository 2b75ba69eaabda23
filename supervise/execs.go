package supervise

import (
	"context"
	"errors"
	"os"

	"github.com/tarehq/tare/fault"
)

// Execs are the further processes of one container, over the connection of its Keeper.
type Execs struct{ line *line }

// Start runs a process in the container and returns its pid in the
// daemon's pid namespace. With conn nil its output is discarded; otherwise
// conn is handed over as by Keeper.Attach.
func (x Execs) Start(ctx context.Context, c ExecConfig, conn *os.File) (pid int, err error) {
	var files []*os.File
	if conn != nil {
		files = append(files, conn)
	}
	var s Started
	if err := x.line.call(ctx, MethodExec, c, &s, files...); err != nil {
		return 0, err
	}
	return s.Pid, nil
}

// Wait waits for the end of one. That of one that has ended is known
// for some minutes and the next 256 execs; after that, and for an exec that
// never was, the error is fault.NotFound.
func (x Execs) Wait(ctx context.Context, id string) (e ExecExit, err error) {
	return e, x.line.call(ctx, MethodExecWait, ExecRequest{id}, &e)
}

// Kill ends one by SIGKILL, with what it started unless that has left
// its process group. fault.Conflict when it has ended.
func (x Execs) Kill(ctx context.Context, id string) error {
	return x.line.call(ctx, MethodExecKill, ExecRequest{id}, nil)
}

// Resize sets the size of one's terminal, in characters.
func (x Execs) Resize(ctx context.Context, id string, height, width uint16) error {
	return x.line.call(ctx, MethodResize, ResizeRequest{id, height, width}, nil)
}

// List tells of those that run, and of those that ended as long as
// Wait knows them. A process of an older version knows of none.
func (x Execs) List(ctx context.Context) (list []ExecStatus, err error) {
	if err := x.line.call(ctx, MethodExecs, nil, &list); !errors.Is(err, fault.NotImplemented) {
		return list, err
	}
	return nil, nil
}

package ocirun

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
)

// runHooks runs programs of the host in order, each with the container's state
// on its standard input. The first failure ends it, and so does the end of ctx.
func (c *Container) runHooks(ctx context.Context, kind string, hooks []specs.Hook, status specs.ContainerState) error {
	if len(hooks) == 0 {
		return nil
	}
	text, err := json.Marshal(c.hookState(status))
	if err != nil {
		return fault.New(fault.Internal, "write the state for the hook %s: %w", kind, err)
	}
	for i := range hooks {
		if err := runHook(ctx, &hooks[i], i, text, kind); err != nil {
			return err
		}
	}
	return nil
}

// hookState is what hooks learn of the container.
func (c *Container) hookState(status specs.ContainerState) specs.State {
	s := specs.State{Version: specs.Version, ID: c.id, Status: status, Pid: c.pid, Bundle: c.bundle, Annotations: c.known().Annotations}
	if status == specs.StateStopped {
		s.Pid = 0
	}
	return s
}

func runHook(outer context.Context, h *specs.Hook, number int, state []byte, kind string) error {
	ctx := outer
	if h.Timeout != nil {
		if *h.Timeout <= 0 {
			return fault.New(fault.Invalid, "the time-out of the hook %s must be greater than zero", kind)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.WaitDelay = time.Second
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = h.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Stdin = bytes.NewReader(state)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	settled := thread.Settle()
	err := cmd.Start()
	settled()
	if err == nil {
		err = cmd.Wait()
	}
	if outer.Err() != nil {
		return outer.Err()
	}
	if ctx.Err() != nil {
		return fault.New(fault.Internal, "the hook %s %s ran longer than its %d s", kind, h.Path, *h.Timeout)
	}
	if err != nil {
		return fault.New(fault.Internal, "error running %s hook #%d: %s: %w, output: %s", kind, number, h.Path, err, strings.TrimSpace(out.String()))
	}
	return nil
}

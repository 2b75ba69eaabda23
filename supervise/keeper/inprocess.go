package keeper

import (
	"context"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/ocirun"
	"github.com/tarehq/tare/supervise"
)

// inProcess is a container made by package ocirun.
type inProcess struct {
	c        *ocirun.Container
	restored bool // it runs already
}

func createInProcess(ctx context.Context, cfg supervise.Config, s *stdio, stage *os.File) (container, error) {
	// What was begun for a daemon that is gone is finished for the next one.
	o := ocirun.Options{Bundle: cfg.Dir, ID: cfg.ID, Stdio: s.child, Console: s.console, Systemd: cfg.Runtime.Systemd, Stage: stage}
	ctx = context.WithoutCancel(ctx)
	if cfg.Restore != nil {
		return restoreInProcess(ctx, cfg, o)
	}
	c, err := ocirun.Create(ctx, o)
	if err != nil {
		return nil, err
	}
	return &inProcess{c, false}, nil
}

func restoreInProcess(ctx context.Context, cfg supervise.Config, o ocirun.Options) (container, error) {
	endPages := func() {}
	if cfg.Restore.Lazy {
		var err error
		if endPages, err = servePages(cfg); err != nil {
			return nil, err
		}
	}
	c, err := ocirun.Restore(ctx, o, restoreOptions(cfg))
	if err != nil {
		endPages()
		return nil, err
	}
	return &inProcess{c, true}, nil
}

func (b *inProcess) pid() int { return b.c.Pid() }

func (b *inProcess) start() error {
	if b.restored {
		return nil
	}
	return b.c.Start()
}

func (b *inProcess) wait() (int, error) {
	s, err := b.c.Wait()
	return s.Code(), err
}

func (b *inProcess) signal(sig syscall.Signal) error { return b.c.Signal(sig, false) }
func (b *inProcess) oomKilled() bool                 { return b.c.OOMKilled() }

func (b *inProcess) delete(leave bool) error {
	if leave {
		return b.c.Leave()
	}
	return b.c.Delete()
}

func (b *inProcess) freeze(on bool) error {
	if on {
		return b.c.Pause()
	}
	return b.c.Resume()
}

func (b *inProcess) update(_ context.Context, r *specs.LinuxResources) error { return b.c.Update(r) }

func (b *inProcess) exec(ctx context.Context, p *specs.Process, s *stdio) (process, error) {
	e, err := b.c.Exec(context.WithoutCancel(ctx), ocirun.ExecOptions{Process: p, Stdio: s.child, Console: s.console})
	if err != nil {
		return nil, err
	}
	return inProcessExec{e}, nil
}

type inProcessExec struct{ p *ocirun.Process }

func (e inProcessExec) pid() int { return e.p.Pid() }

func (e inProcessExec) wait() (int, error) {
	s, err := e.p.Wait()
	return s.Code(), err
}

package build

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/supervise"
)

// Command is what runs in a Sandbox.
type Command struct {
	Args, Env  []string
	SecretEnv  []*pb.SecretEnv
	User, Cwd  string
	TTY, Stdin bool
	Insecure   bool // with all privileges, if the build has them
}

// Process is a command that runs in a Sandbox. The first one is the
// container's: with it the others end.
type Process struct {
	keeper *supervise.Keeper
	exec   string // "" for the first
	tty    bool
	pid    *os.File // as a descriptor; nil if it ended at once
	conn   *net.UnixConn
}

// Start runs a command. Its output must be read by Copy.
func (b *Sandbox) Start(ctx context.Context, c Command) (*Process, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fault.New(fault.NotFound, "the container was released")
	}
	s := b.step
	op := &pb.ExecOp{Network: s.op.Network, Mounts: s.op.Mounts, Secretenv: c.SecretEnv, Meta: &pb.Meta{Args: c.Args, Env: c.Env, User: c.User, Cwd: c.Cwd,
		Hostname: s.op.Meta.Hostname, ExtraHosts: s.op.Meta.ExtraHosts, CgroupParent: s.op.Meta.CgroupParent}}
	if c.Insecure {
		op.Security = pb.SecurityMode_INSECURE
	}
	if err := s.job.permit(op); err != nil {
		return nil, err
	}
	s.changed = s.changed || c.Insecure
	s.op, s.tty, s.stdin, s.secret = op, c.TTY, c.Stdin, nil
	if op.Meta.Cwd == "" {
		op.Meta.Cwd = "/"
	}
	if err := s.secretEnv(ctx); err != nil {
		return nil, err
	}
	conn, in, err := streams()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	p := &Process{tty: c.TTY, conn: conn}
	attach := supervise.AttachOptions{Stdin: c.Stdin, Stdout: true, Stderr: true, Multiplexed: !c.TTY}
	if b.keeper == nil {
		err = b.first(ctx, p, attach, in)
	} else {
		err = b.further(ctx, p, attach, in)
	}
	if err != nil {
		conn.Close()
		return nil, s.failed(err)
	}
	return p, nil
}

// first makes the container with the process.
func (b *Sandbox) first(ctx context.Context, p *Process, attach supervise.AttachOptions, in *os.File) error {
	s := b.step
	config, err := s.config(ctx)
	if err != nil {
		return err
	}
	b.keeper, err = s.job.solver.Launcher.Run(ctx, config, []supervise.Client{{Options: attach, Conn: in}})
	p.keeper = b.keeper
	return err
}

// further runs a process in the container that is there.
func (b *Sandbox) further(ctx context.Context, p *Process, attach supervise.AttachOptions, in *os.File) error {
	s := b.step
	request, err := s.input(ctx)
	if err != nil {
		return err
	}
	oci, err := spec.Build(request)
	if err != nil {
		return err
	}
	oci.Process.Env = s.env()
	p.keeper, p.exec = b.keeper, idgen.New()
	pid, err := b.keeper.Execs.Start(ctx, supervise.ExecConfig{ID: p.exec, Process: *oci.Process, Attach: attach}, in)
	if err != nil {
		return err
	}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil { // else it is over
		p.pid = os.NewFile(uintptr(fd), "process")
	}
	return nil
}

// Write is the command's standard input.
func (p *Process) Write(data []byte) (int, error) { return p.conn.Write(data) }

// CloseStdin ends the standard input.
func (p *Process) CloseStdin() error { return p.conn.CloseWrite() }

// Copy passes the output on until it ends. With a terminal there is no second
// stream.
func (p *Process) Copy(stdout, stderr io.Writer) error {
	defer p.conn.Close()
	if p.tty {
		_, err := io.Copy(stdout, p.conn)
		return err
	}
	to := [3]io.Writer{io.Discard, stdout, stderr}
	for {
		var head [8]byte
		if _, err := io.ReadFull(p.conn, head[:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		n := int64(head[4])<<24 | int64(head[5])<<16 | int64(head[6])<<8 | int64(head[7])
		if _, err := io.CopyN(to[min(head[0], 2)], p.conn, n); err != nil {
			return err
		}
	}
}

// Wait waits for the end and returns the exit code.
func (p *Process) Wait(ctx context.Context) (int, error) {
	if p.exec == "" {
		exit, err := p.keeper.Wait(ctx)
		return exit.Code, err
	}
	exit, err := p.keeper.Execs.Wait(ctx, p.exec)
	if p.pid != nil {
		p.pid.Close()
	}
	return exit.Code, err
}

// Resize gives the terminal a size, in characters.
func (p *Process) Resize(ctx context.Context, height, width uint32) error {
	rows, columns := uint16(min(height, 1<<16-1)), uint16(min(width, 1<<16-1))
	if p.exec == "" {
		return p.keeper.Resize(ctx, rows, columns)
	}
	return p.keeper.Execs.Resize(ctx, p.exec, rows, columns)
}

// Signal sends a signal.
func (p *Process) Signal(ctx context.Context, sig syscall.Signal) error {
	if p.exec == "" {
		return p.keeper.Signal(ctx, sig)
	}
	if p.pid == nil {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(int(p.pid.Fd()), sig, nil, 0))
}

// Kill ends it.
func (p *Process) Kill(ctx context.Context) error {
	if p.exec == "" {
		return p.keeper.Kill(ctx)
	}
	return p.keeper.Execs.Kill(ctx, p.exec)
}

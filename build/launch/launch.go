// Package launch is the daemon's hold on tare-build, the process that builds:
// it is started when the first client comes, gets clients' connections handed
// over, borrows from the daemon (build/lend), and ends by itself when nobody has
// come for a while. It lives no longer than the daemon: it ends at the end of
// its standard input.
//
//	<dir>/in.sock    where connections are handed over; the process has it as descriptor 3
//	<dir>/lend.sock  where it borrows
//	<dir>/steps/     the bundles of its steps, as package supervise has them
package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tarehq/tare/build/keep"
	"github.com/tarehq/tare/build/lend"
	"github.com/tarehq/tare/container/device"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/handoff"
	"github.com/tarehq/tare/supervise"
)

// Config says what the process is and has.
type Config struct {
	Program      func() (string, error) // finds tare-build
	Dir          string                 // of this boot, as the exec root
	Root         string                 // where it keeps its cache
	CgroupParent string                 // of its steps
	HostGateway  func() netip.Addr      // what host-gateway stands for; not valid for nothing
	Rules        []keep.Rule            // the ceilings of its cache
	Grants       []string               // what clients may grant to their builds
	Devices      device.CDI             // what its steps may have
	Loan         lend.Config            // what the daemon lends
	Steps        *supervise.Launcher    // to clean up after steps
	Log          *slog.Logger
}

// Builder is the process, whether it runs or not.
type Builder struct {
	Config
	mu      sync.Mutex
	running *process
	closed  bool
}

// process is one run.
type process struct {
	alive  io.Closer // its standard input
	lender *lend.Lender
	server *http.Server
	done   chan struct{} // closed when all that it left is gone
}

// endTime bounds how long the process may take to end by itself.
const endTime = 5 * time.Second

// New makes ready what an earlier daemon may have left.
func New(ctx context.Context, c Config) (*Builder, error) {
	b := &Builder{Config: c}
	if err := os.MkdirAll(filepath.Join(c.Dir, "steps"), 0o700); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Root, 0o700); err != nil {
		return nil, err
	}
	return b, errors.Join(b.endSteps(ctx), b.dropHalves())
}

// maxTries is how often a connection is handed over: once the process may begin to end with
// the connection still in its queue, and then nobody listens.
const maxTries = 3

// Serve hands a client's connection over, with what was read of it. It returns
// when the connection is no longer the caller's to keep open.
func (b *Builder) Serve(conn net.Conn, read []byte) error {
	for try := 1; ; try++ {
		p, err := b.start()
		var wait func()
		if err == nil {
			wait, err = handoff.Send(b.in(), conn, read)
		}
		switch {
		case err == nil:
			wait()
			return nil
		case p == nil || try == maxTries || errors.Is(err, os.ErrDeadlineExceeded): // it may have the connection then
			conn.Close()
			return fault.New(fault.Unavailable, "the process that builds cannot be reached: %w", err)
		case errors.Is(err, syscall.ECONNREFUSED): // it ends, since nobody had come
			p.alive.Close()
			<-p.done
		}
		// Or it did not take this connection, and builds for others.
	}
}

func (b *Builder) in() string { return filepath.Join(b.Dir, "in.sock") }

// Ready starts the process unless it runs.
func (b *Builder) Ready() error {
	_, err := b.start()
	return err
}

// start returns the process that runs, and starts it if there is none.
func (b *Builder) start() (*process, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fault.New(fault.Unavailable, "the daemon is stopping")
	}
	if b.running != nil {
		return b.running, nil
	}
	p, err := b.launch()
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the process that builds cannot be started: %w", err)
	}
	b.running = p
	return p, nil
}

func (b *Builder) launch() (*process, error) {
	program, err := b.Program()
	if err != nil {
		return nil, err
	}
	in, err := listen(b.in())
	if err != nil {
		return nil, err
	}
	defer in.Close() // the process has its own
	file, err := in.File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lending, err := listen(filepath.Join(b.Dir, "lend.sock"))
	if err != nil {
		return nil, err
	}
	rules, err := json.Marshal(b.Rules)
	if err != nil {
		return nil, errors.Join(err, lending.Close())
	}
	users, err := json.Marshal(b.Loan.Users)
	if err != nil {
		return nil, errors.Join(err, lending.Close())
	}
	lender := lend.New(b.Loan)
	p := &process{lender: lender, server: &http.Server{Handler: lender}, done: make(chan struct{})}
	cmd := exec.Command(program, "--dir", b.Dir, "--root", b.Root, "--cgroup-parent", b.CgroupParent, "--keep", string(rules),
		"--grants", strings.Join(b.Grants, ","), "--users", string(users))
	for _, dir := range b.Devices.Dirs {
		cmd.Args = append(cmd.Args, "--devices", dir)
	}
	if a := b.HostGateway(); a.IsValid() {
		cmd.Args = append(cmd.Args, "--host-gateway", a.String())
	}
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's interrupt is the daemon's to hear
	said := &lines{log: b.Log}
	cmd.Stderr = said
	alive, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, lending.Close(), lender.Close(context.Background()))
	}
	p.alive = alive
	go func() { _ = p.server.Serve(lending) }() // until Close
	go b.await(cmd, p)
	return p, nil
}

// listen makes a socket in place of one that a process left.
func listen(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	return l, os.Chmod(path, 0o600)
}

// await sees a run to its end and cleans up.
func (b *Builder) await(cmd *exec.Cmd, p *process) {
	defer close(p.done)
	if err := cmd.Wait(); err != nil {
		b.Log.Error("the process that builds has ended, and its builds with it", "err", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*endTime)
	defer cancel()
	err := errors.Join(p.server.Close(), b.endSteps(ctx), p.lender.Close(ctx), b.dropHalves())
	if err != nil {
		b.Log.Error("what builds left cannot be removed", "err", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = nil
}

// dropHalves removes what a process that is no more had half made.
func (b *Builder) dropHalves() error {
	halves, err := filepath.Glob(filepath.Join(b.Root, "*", "new*"))
	for _, path := range append(halves, filepath.Join(b.Root, "scratch")) {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// endSteps ends the steps of a process that is no more.
func (b *Builder) endSteps(ctx context.Context) error {
	steps := filepath.Join(b.Dir, "steps")
	entries, err := os.ReadDir(steps)
	for _, e := range entries {
		err = errors.Join(err, b.endStep(ctx, e.Name(), filepath.Join(steps, e.Name())))
	}
	return err
}

func (b *Builder) endStep(ctx context.Context, id, dir string) error {
	k, err := supervise.Connect(ctx, dir)
	switch {
	case err == nil:
		defer k.Close()
		if k.Status().Phase != supervise.PhaseExited {
			if err := k.Kill(ctx); err != nil && !errors.Is(err, fault.Conflict) {
				return err
			}
		}
		if _, err := k.Wait(ctx); err != nil {
			return err
		}
		if err := k.Release(ctx); err != nil {
			return err
		}
	case errors.Is(err, fault.NotFound):
		if err := supervise.KillInit(dir); err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(dir, "config.json")); err == nil {
			if err := b.Steps.Collect(ctx, id, dir); err != nil {
				return err
			}
		}
	default:
		return err
	}
	return os.RemoveAll(dir)
}

// Close ends the process and its builds.
func (b *Builder) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	p := b.running
	b.mu.Unlock()
	if p == nil {
		return nil
	}
	p.alive.Close()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lines puts what the process says into the daemon's log.
type lines struct {
	log  *slog.Logger
	rest []byte
}

// maxLine bounds a line of the log, in bytes.
const maxLine = 4 << 10

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			if l.rest = append(l.rest, p...); len(l.rest) > maxLine {
				l.say()
			}
			break
		}
		l.rest = append(l.rest, p[:i]...)
		l.say()
		p = p[i+1:]
	}
	return n, nil
}

func (l *lines) say() {
	if len(l.rest) > 0 {
		l.log.Warn("the process that builds says", "line", string(l.rest))
	}
	l.rest = l.rest[:0]
}

package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/signum"
	"github.com/tarehq/tare/ocirun"
	"golang.org/x/sys/unix"
)

// The linker's: -X main.version=… -X main.gitCommit=…
var version, gitCommit = "0.1.0", "unknown"

var specVersion = specs.Version

// startFlags are what create, run and exec have in common.
type startFlags struct {
	bundle, console, pidFile string
	pidfdSocket, config      string
	preserve                 int
	noPivot, detach, keep    bool
	noKeyring, noSubreaper   bool
	restored                 bool // it runs already
}

func (s *startFlags) register(f *flag.FlagSet) {
	f.StringVar(&s.console, "console-socket", "", "")
	f.StringVar(&s.pidFile, "pid-file", "", "")
	f.StringVar(&s.pidfdSocket, "pidfd-socket", "", "")
	f.IntVar(&s.preserve, "preserve-fds", 0, "")
}

func (s *startFlags) registerBundle(f *flag.FlagSet) {
	s.register(f)
	f.StringVar(&s.bundle, "bundle", "", "")
	f.StringVar(&s.bundle, "b", "", "")
	f.StringVar(&s.config, "config", "", "")
	f.StringVar(&s.config, "f", "", "")
	f.BoolVar(&s.noPivot, "no-pivot", false, "")
	f.BoolVar(&s.noKeyring, "no-new-keyring", false, "")
}

// options completes a container's options and reads its bundle.
func (s *startFlags) options(g *settings, id string) (ocirun.Options, error) {
	bundle, err := filepath.Abs(s.bundle)
	if err != nil {
		return ocirun.Options{}, fault.New(fault.Invalid, "the bundle %q cannot be found: %w", s.bundle, err)
	}
	if s.config == "config.json" {
		s.config = ""
	}
	spec, text, err := ocirun.ReadBundle(bundle, s.config)
	if err != nil {
		return ocirun.Options{}, err
	}
	o := ocirun.Options{Bundle: bundle, Config: s.config, Spec: spec, Text: text, ID: id, StateDir: g.root, NoPivot: s.noPivot, NoKeyring: s.noKeyring,
		Systemd: g.systemd, Rootless: g.rootless, Warn: g.warn,
		Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}}
	if spec.Process != nil {
		o.ExtraFiles, spec.Process.Env = s.extraFiles(spec.Process.Env)
	}
	return o, nil
}

// extraFiles are those of socket activation and of --preserve-fds.
func (s *startFlags) extraFiles(env []string) ([]*os.File, []string) {
	n := s.preserve
	if listen, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && listen > 0 {
		n += listen
		env = append(env, "LISTEN_FDS="+strconv.Itoa(listen), "LISTEN_PID=1")
	}
	var files []*os.File
	for i := range n {
		files = append(files, os.NewFile(uintptr(3+i), "preserved"))
	}
	return files, env
}

func runCreate(g *settings, args []string) error {
	var s startFlags
	f := newFlags("create")
	s.registerBundle(f)
	id, err := onlyID(f, args)
	if err != nil {
		return err
	}
	o, err := s.options(g, id)
	if err != nil {
		return err
	}
	if o.Console, err = s.dial(o.Spec.Process); err != nil {
		return err
	}
	c, err := ocirun.Create(context.Background(), o)
	if err != nil {
		return err
	}
	g.traceSteps(c)
	if err := s.announce(c.Pid()); err != nil {
		_ = c.Signal(unix.SIGKILL, false)
		_ = c.Delete()
		return err
	}
	return nil
}

// announce tells who waits for it which process was made.
func (s *startFlags) announce(pid int) error {
	if err := writePidFile(s.pidFile, pid); err != nil {
		return err
	}
	if s.pidfdSocket == "" {
		return nil
	}
	socket, err := connect("pidfd socket", s.pidfdSocket)
	if err != nil {
		return err
	}
	defer socket.Close()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		err = unix.Sendmsg(int(socket.Fd()), []byte("pidfd"), unix.UnixRights(pidfd), nil, 0)
		unix.Close(pidfd)
	}
	if err != nil {
		return fault.New(fault.Internal, "send the pidfd of process %d: %w", pid, err)
	}
	return nil
}

// dial connects the console socket that a terminal of a detached process needs.
func (s *startFlags) dial(p *specs.Process) (*os.File, error) {
	terminal := p != nil && p.Terminal
	switch {
	case terminal && s.console == "":
		return nil, fault.New(fault.Invalid, "cannot allocate tty if tarerun will detach without setting console socket")
	case !terminal && s.console != "":
		return nil, fault.New(fault.Invalid, "cannot use console socket if tarerun will not detach or allocate tty")
	case !terminal:
		return nil, nil
	}
	return connect("console socket", s.console)
}

func connect(what, path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Internal, "make a socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, fault.New(fault.Invalid, "connect to the %s %s: %w", what, path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func runStart(g *settings, args []string) error {
	return withContainer(g, "start", args, (*ocirun.Container).Start)
}

func runRun(g *settings, args []string) error {
	var s startFlags
	f := newFlags("run")
	s.registerBundle(f)
	f.BoolVar(&s.detach, "detach", false, "")
	f.BoolVar(&s.detach, "d", false, "")
	f.BoolVar(&s.keep, "keep", false, "")
	f.BoolVar(&s.noSubreaper, "no-subreaper", false, "")
	id, err := onlyID(f, args)
	if err != nil {
		return err
	}
	o, err := s.options(g, id)
	if err != nil {
		return err
	}
	ctx, term, caught, err := s.attach(&o)
	if err != nil {
		return err
	}
	c, err := ocirun.Create(ctx, o)
	if err != nil {
		return interrupted(ctx, err)
	}
	g.traceSteps(c)
	return s.runCreated(ctx, c, term, caught)
}

// attach readies this process to stay with a container that is to be made, or
// to give its terminal away: with term and caught nil, when it is detached. ctx ends
// with a signal that comes meanwhile.
func (s *startFlags) attach(o *ocirun.Options) (ctx context.Context, term *terminal, caught *signals, err error) {
	if s.detach {
		o.Console, err = s.dial(o.Spec.Process)
		return context.Background(), nil, nil, err
	}
	if term, o.Console, err = foreground(o.Spec.Process); err != nil {
		return nil, nil, nil, err
	}
	if !s.noSubreaper {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	caught, ctx, err = catchSignals()
	return ctx, term, caught, err
}

// runCreated starts a container and, unless it is detached, stays with it until
// its process ends, which gives an exitCode. A signal that ended ctx came before
// there was a program to hear it, and ends the container.
func (s *startFlags) runCreated(ctx context.Context, c *ocirun.Container, term *terminal, caught *signals) error {
	fail := func(err error) error {
		_ = c.Signal(unix.SIGKILL, false)
		_, _ = c.Wait()
		term.close() // what it said before
		_ = c.Delete()
		return err
	}
	if err := s.announce(c.Pid()); err != nil {
		return fail(err)
	}
	if term != nil {
		if err := term.receive(); err != nil {
			return fail(err)
		}
	}
	if !s.detach {
		caught.forward(func(sig unix.Signal) error { return c.Signal(sig, false) }, term)
	}
	if err := ctx.Err(); err != nil {
		return fail(interrupted(ctx, err))
	}
	if !s.restored {
		if err := c.Start(); err != nil {
			return fail(err)
		}
	}
	if s.detach {
		return nil
	}
	status, err := c.Wait()
	term.close()
	if err == nil && !s.keep {
		err = c.Delete()
	}
	if err != nil {
		return err
	}
	return exitCode(status.Code())
}

func runKill(g *settings, args []string) error {
	f := newFlags("kill")
	all := f.Bool("all", false, "")
	f.BoolVar(all, "a", false, "")
	words, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(words) < 1 || len(words) > 2 {
		return fault.New(fault.Invalid, "tarerun kill takes a container ID and a signal")
	}
	sig := unix.SIGTERM
	if len(words) == 2 {
		if sig, err = parseSignal(words[1]); err != nil {
			return err
		}
	}
	c, err := ocirun.Load(g.root, words[0])
	if err != nil {
		return err
	}
	if !*all && c.State().Status == specs.StateStopped && !leftAlone(c, sig) {
		return fault.New(fault.Conflict, "container not running")
	}
	if err := c.Signal(sig, *all); err != nil || sig != unix.SIGKILL || c.State().Status != "paused" {
		return err
	}
	return c.Resume() // on v1 the frozen do not die
}

// leftAlone tells that SIGKILL still finds processes of a container whose init
// is gone, which had no pid namespace that ended with it.
func leftAlone(c *ocirun.Container, sig unix.Signal) bool {
	if sig != unix.SIGKILL {
		return false
	}
	pids, err := c.Processes()
	return err == nil && len(pids) > 0
}

func parseSignal(s string) (unix.Signal, error) {
	sig, ok := signum.Parse(s)
	if !ok {
		return 0, fault.New(fault.Invalid, "unknown signal %q", s)
	}
	return sig, nil
}

func runDelete(g *settings, args []string) error {
	f := newFlags("delete")
	force := f.Bool("force", false, "")
	f.BoolVar(force, "f", false, "")
	ids, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return fault.New(fault.Invalid, "tarerun delete takes container IDs")
	}
	var first error
	for _, id := range ids {
		if err := deleteOne(g, id, *force); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func deleteOne(g *settings, id string, force bool) error {
	c, err := ocirun.Load(g.root, id)
	if err != nil {
		if force && fault.KindOf(err) == fault.NotFound {
			return ocirun.Discard(g.root, id)
		}
		return err
	}
	if s := c.State().Status; s != specs.StateStopped {
		if s != specs.StateCreated && !force {
			return fault.New(fault.Conflict, "cannot delete container %s that is not stopped: %s", id, s)
		}
		_ = c.Signal(unix.SIGKILL, false)
		if s == "paused" {
			_ = c.Resume()
		}
		deadline := time.Now().Add(10 * time.Second)
		for c.State().Status != specs.StateStopped && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
	}
	return c.Delete()
}

func runPause(g *settings, args []string) error {
	return withContainer(g, "pause", args, func(c *ocirun.Container) error {
		if s := c.State().Status; s != specs.StateRunning && s != specs.StateCreated {
			return fault.New(fault.Conflict, "container not running or created: %s", s)
		}
		return c.Pause()
	})
}

func runResume(g *settings, args []string) error {
	return withContainer(g, "resume", args, func(c *ocirun.Container) error {
		if s := c.State().Status; s != "paused" {
			return fault.New(fault.Conflict, "container not paused: %s", s)
		}
		return c.Resume()
	})
}

func withContainer(g *settings, name string, args []string, f func(*ocirun.Container) error) error {
	c, err := onlyContainer(g, newFlags(name), args)
	if err != nil {
		return err
	}
	return f(c)
}

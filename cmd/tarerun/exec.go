package main

import (
	"context"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun"
	"golang.org/x/sys/unix"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// execFlags are the flags of exec that change the process.
type execFlags struct {
	startFlags
	process, cwd, user string
	apparmor, label    string
	env, groups, caps  list
	cgroups            list
	tty, noNewPrivs    bool
	ignorePaused       bool
}

func runExec(g *settings, args []string) error {
	var e execFlags
	f := newFlags("exec")
	e.register(f)
	f.StringVar(&e.process, "process", "", "")
	f.StringVar(&e.process, "p", "", "")
	f.StringVar(&e.cwd, "cwd", "", "")
	f.StringVar(&e.user, "user", "", "")
	f.StringVar(&e.user, "u", "", "")
	f.Var(&e.env, "env", "")
	f.Var(&e.env, "e", "")
	f.Var(&e.groups, "additional-gids", "")
	f.Var(&e.groups, "g", "")
	f.Var(&e.caps, "cap", "")
	f.Var(&e.caps, "c", "")
	f.BoolVar(&e.tty, "tty", false, "")
	f.BoolVar(&e.tty, "t", false, "")
	f.BoolVar(&e.detach, "detach", false, "")
	f.BoolVar(&e.detach, "d", false, "")
	f.BoolVar(&e.noNewPrivs, "no-new-privs", false, "")
	f.Var(&e.cgroups, "cgroup", "")
	f.BoolVar(&e.ignorePaused, "ignore-paused", false, "")
	f.StringVar(&e.apparmor, "apparmor", "", "")
	f.StringVar(&e.label, "process-label", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return fault.New(fault.Invalid, "tarerun exec takes a container ID and a command")
	}
	c, err := ocirun.Load(g.root, f.Arg(0))
	if err != nil {
		return err
	}
	switch s := c.State().Status; {
	case s == specs.StateStopped:
		return fault.New(fault.Conflict, "cannot exec a container that has stopped")
	case s == "paused" && !e.ignorePaused:
		return fault.New(fault.Conflict, "cannot exec in a paused container (use --ignore-paused to override)")
	}
	p, err := e.build(c, f.Args()[1:])
	if err != nil {
		return err
	}
	return e.start(g, c, p)
}

// build makes the process from --process or from the container's own with the
// flags' changes.
func (e *execFlags) build(c *ocirun.Container, args []string) (*specs.Process, error) {
	if e.process != "" {
		b, err := os.ReadFile(e.process)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read the process: %w", err)
		}
		p := new(specs.Process)
		if err := ocirun.DecodeProcess(b, p); err != nil {
			return nil, fault.New(fault.Invalid, "%s is not valid: %w", e.process, err)
		}
		return p, nil
	}
	if len(args) == 0 {
		return nil, fault.New(fault.Invalid, "process args cannot be empty")
	}
	p := *c.Spec().Process
	p.Args, p.Terminal = args, e.tty
	if e.cwd != "" {
		p.Cwd = e.cwd
	}
	p.Env = append(p.Env[:len(p.Env):len(p.Env)], e.env...)
	if e.noNewPrivs {
		p.NoNewPrivileges = true
	}
	if e.apparmor != "" {
		p.ApparmorProfile = e.apparmor
	}
	if e.label != "" {
		p.SelinuxLabel = e.label
	}
	if err := e.addCaps(&p); err != nil {
		return nil, err
	}
	return &p, e.setUser(&p)
}

func (e *execFlags) addCaps(p *specs.Process) error {
	if len(e.caps) == 0 {
		return nil
	}
	caps := specs.LinuxCapabilities{}
	if p.Capabilities != nil {
		caps = *p.Capabilities
	}
	sets := []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted}
	if len(caps.Inheritable) > 0 { // then they pass through programs without file capabilities too
		sets = append(sets, &caps.Ambient)
	}
	for _, set := range sets {
		*set = append((*set)[:len(*set):len(*set)], e.caps...)
	}
	p.Capabilities = &caps
	return nil
}

func (e *execFlags) setUser(p *specs.Process) error {
	number := func(s string) (uint32, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return 0, fault.New(fault.Invalid, "%q is not the number of a user or group", s)
		}
		return uint32(n), nil
	}
	var err error
	if e.user != "" {
		uid, gid, both := strings.Cut(e.user, ":")
		if p.User.UID, err = number(uid); err != nil {
			return err
		}
		if both {
			if p.User.GID, err = number(gid); err != nil {
				return err
			}
		}
	}
	for _, s := range e.groups {
		gid, err := number(s)
		if err != nil {
			return err
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids[:len(p.User.AdditionalGids):len(p.User.AdditionalGids)], gid)
	}
	return nil
}

func (e *execFlags) start(g *settings, c *ocirun.Container, p *specs.Process) error {
	o := ocirun.ExecOptions{Process: p, Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, Warn: g.warn,
		Cgroups: e.cgroups}
	o.ExtraFiles, p.Env = e.extraFiles(p.Env)
	var term *terminal
	var err error
	if e.detach || e.console != "" {
		o.Console, err = e.dial(p)
	} else {
		term, o.Console, err = foreground(p)
	}
	if err != nil {
		return err
	}
	var caught *signals
	ctx := context.Background()
	if !e.detach {
		if caught, ctx, err = catchSignals(); err != nil {
			return err
		}
	}
	proc, err := c.Exec(ctx, o)
	if err != nil {
		return interrupted(ctx, fault.New(fault.KindOf(err), "exec failed: %w", err))
	}
	if err := e.announce(proc.Pid()); err != nil {
		_ = unix.Kill(proc.Pid(), unix.SIGKILL)
		return err
	}
	if term != nil {
		if err := term.receive(); err != nil {
			_ = unix.Kill(proc.Pid(), unix.SIGKILL)
			return err
		}
	}
	if e.detach {
		return nil
	}
	caught.forward(func(sig unix.Signal) error { return unix.Kill(proc.Pid(), sig) }, term)
	status, err := proc.Wait()
	term.close()
	if err != nil {
		return err
	}
	if code := status.Code(); code != 0 {
		return exitCode(code)
	}
	return nil
}

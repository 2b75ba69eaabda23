package container

import (
	"context"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/cli/stream"
	"github.com/tarehq/tare/client"
)

// Exec is the command exec.
func Exec() *command.Command {
	f := command.NewFlags()
	f.SetInterspersed(false)
	e := &exec{}
	e.register(f)
	return &command.Command{Usage: "[OPTIONS] CONTAINER COMMAND [ARG...]", MinArgs: 2, MaxArgs: -1, Program: true, Flags: f,
		Example: "tare exec -it web sh", Run: e.run}
}

type exec struct {
	request       client.ExecRequest
	detach, stdin bool
	env, envFiles *option.List
}

func (e *exec) register(f *pflag.FlagSet) {
	r := &e.request
	f.BoolVarP(&e.detach, "detach", "d", false, "Detached mode: run command in the background")
	f.StringVar(&r.DetachKeys, "detach-keys", "", option.DetachKeys)
	e.env = option.NewList(f, "env", "e", "Set environment variables", checkEnv)
	e.envFiles = option.NewList(f, "env-file", "", "Read in a file of environment variables", nil)
	f.BoolVarP(&e.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVar(&r.Privileged, "privileged", false, "Give extended privileges to the command")
	f.BoolVarP(&r.Tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.StringVarP(&r.User, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.StringVarP(&r.WorkingDir, "workdir", "w", "", "Working directory inside the container")
}

func (e *exec) run(ctx context.Context, s *command.Session, args []string) error {
	r := &e.request
	var err error
	if r.Env, err = environment(e.envFiles.Values, e.env.Values); err != nil {
		return err
	}
	if r.DetachKeys == "" {
		r.DetachKeys = s.Config().DetachKeys
	}
	watched, err := stream.ParseKeys(r.DetachKeys)
	if err != nil {
		return err
	}
	r.Cmd = args[1:]
	if !e.detach {
		r.AttachStdin, r.AttachStdout, r.AttachStderr = e.stdin, true, true
		if err := stream.CheckInput(s.In, e.stdin, r.Tty); err != nil {
			return err
		}
	}
	if h, w := stream.Size(s.Out); r.Tty && (h != 0 || w != 0) {
		r.ConsoleSize = &[2]uint{h, w}
	}
	cl, err := s.Client()
	if err != nil {
		return err
	}
	if !e.detach {
		return e.attach(ctx, s, cl, args[0], watched)
	}
	id, err := cl.ExecCreate(ctx, args[0], r)
	if err != nil {
		return err
	}
	return execError(cl.ExecStart(ctx, id, client.ExecStartRequest{Detach: true, Tty: r.Tty, ConsoleSize: r.ConsoleSize}))
}

func (e *exec) attach(ctx context.Context, s *command.Session, cl *client.Client, container string, watched []byte) error {
	id, conn, err := cl.ExecRun(ctx, container, &e.request)
	if err != nil {
		return execError(err)
	}
	tty := e.request.Tty
	a := &stream.Attached{Stream: conn, Out: s.Out, TTY: tty, DetachKeys: watched}
	pick(&a.In, s.In, e.stdin)
	pick(&a.Err, s.Err, !tty)
	restore := func() {}
	if tty {
		if e.stdin {
			if restore, err = stream.Raw(s.In); err != nil {
				return err
			}
			defer restore()
		}
		go stream.FollowSize(s.Out, func(h, w uint) { cl.ExecResize(ctx, id, h, w) })
	}
	detached, err := a.Run(ctx)
	restore()
	if detached {
		return errDetached
	}
	if err != nil {
		return err
	}
	code := conn.Exit
	if code == nil {
		state, err := cl.ExecInspect(ctx, id)
		if err != nil {
			return err
		}
		code = state.ExitCode
	}
	if code != nil && *code != 0 {
		return &command.Exit{Code: *code}
	}
	return nil
}

// execError gives a command that cannot be executed its exit code.
func execError(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		return &command.Exit{Code: 127, Err: err}
	case strings.Contains(text, "permission denied"), strings.Contains(text, "is a directory"):
		return &command.Exit{Code: 126, Err: err}
	}
	return err
}

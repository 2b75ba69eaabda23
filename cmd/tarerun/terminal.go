package main

import (
	"context"
	"io"
	"os"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/caught"
	"golang.org/x/sys/unix"
)

// terminal is the pty of a foreground process and the user's terminal that is
// joined to it.
type terminal struct {
	socket *os.File // where the pty arrives
	master *os.File
	user   *os.File      // the user's terminal
	saved  *unix.Termios // its settings
	output sync.WaitGroup
}

// foreground prepares a terminal if the process wants one, and gives the socket
// to be handed to the container.
func foreground(p *specs.Process) (*terminal, *os.File, error) {
	if p == nil || !p.Terminal {
		return nil, nil, nil
	}
	user := userTerminal()
	if user == nil {
		return nil, nil, fault.New(fault.Invalid, "the process wants a terminal and there is none here: run it in one, detach with a console socket, or set process.terminal to false")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fault.New(fault.Internal, "make the console socket: %w", err)
	}
	if p.ConsoleSize == nil {
		if ws, err := unix.IoctlGetWinsize(int(user.Fd()), unix.TIOCGWINSZ); err == nil {
			p.ConsoleSize = &specs.Box{Height: uint(ws.Row), Width: uint(ws.Col)}
		}
	}
	return &terminal{socket: os.NewFile(uintptr(pair[0]), "console"), user: user}, os.NewFile(uintptr(pair[1]), "console"), nil
}

// userTerminal is the first standard stream that is a terminal, or the
// controlling terminal when all three lead elsewhere; nil without any.
func userTerminal() *os.File {
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			return f
		}
	}
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "/dev/tty")
}

// receive takes the pty and begins to copy.
func (t *terminal) receive() error {
	name, control := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(t.socket.Fd()), name, control, unix.MSG_CMSG_CLOEXEC)
	if err == nil {
		var messages []unix.SocketControlMessage
		if messages, err = unix.ParseSocketControlMessage(control[:n]); err == nil && len(messages) == 1 {
			var fds []int
			if fds, err = unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
				t.master = os.NewFile(uintptr(fds[0]), "pty")
			}
		}
	}
	t.socket.Close()
	if t.master == nil {
		return fault.New(fault.Internal, "receive the terminal of the container: %v", err)
	}
	t.plainNewlines()
	t.raw()
	go func() { _, _ = io.Copy(t.master, os.Stdin) }() // ends with the program: a read of stdin cannot be interrupted
	t.output.Add(1)
	go func() {
		defer t.output.Done()
		_, _ = io.Copy(os.Stdout, t.master) // ends with EIO when the last process closed the terminal
	}()
	return nil
}

// plainNewlines keeps the container's terminal from adding carriage returns,
// which the user's terminal adds itself.
func (t *terminal) plainNewlines() {
	if mode, err := unix.IoctlGetTermios(int(t.master.Fd()), unix.TCGETS); err == nil {
		mode.Oflag &^= unix.ONLCR
		_ = unix.IoctlSetTermios(int(t.master.Fd()), unix.TCSETS, mode)
	}
}

// raw lets the user's terminal pass every key on.
func (t *terminal) raw() {
	old, err := unix.IoctlGetTermios(int(t.user.Fd()), unix.TCGETS)
	if err != nil {
		return
	}
	t.saved = old
	r := *old
	r.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	r.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	r.Cflag = r.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	r.Cc[unix.VMIN], r.Cc[unix.VTIME] = 1, 0
	_ = unix.IoctlSetTermios(int(t.user.Fd()), unix.TCSETS, &r)
}

func (t *terminal) resize() {
	if t == nil || t.master == nil {
		return
	}
	if ws, err := unix.IoctlGetWinsize(int(t.user.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, ws)
	}
}

// close waits for the last output and restores the user's terminal.
func (t *terminal) close() {
	if t == nil || t.master == nil {
		return
	}
	t.output.Wait()
	if t.saved != nil {
		_ = unix.IoctlSetTermios(int(t.user.Fd()), unix.TCSETS, t.saved)
	}
}

// forwarded are the signals that a foreground process gets instead of us: what
// people and service managers send.
var forwarded = []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT,
	unix.SIGTSTP, unix.SIGALRM, unix.SIGWINCH}

// signals are those that arrive for a process in the foreground.
type signals struct {
	fd     int // where they arrive
	cancel context.CancelCauseFunc

	mu   sync.Mutex
	held []unix.Signal
	send func(unix.Signal) // nil: they are held back
}

// catchSignals begins to hold signals back. The first that would end a program
// ends ctx; its cause is then the exitCode.
func catchSignals() (*signals, context.Context, error) {
	fd, err := caught.Open(forwarded...)
	if err != nil {
		return nil, nil, fault.New(fault.Internal, "catch signals: %w", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &signals{fd: fd, cancel: cancel}
	go func() { // for the rest of this program's life
		arrived, b := os.NewFile(uintptr(fd), "signals"), make([]byte, 64)
		for {
			n, err := arrived.Read(b)
			if err != nil {
				return
			}
			s.take(b[:n])
		}
	}()
	return s, ctx, nil
}

// take passes on what has arrived, or holds it back.
func (s *signals) take(numbers []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range numbers {
		got := unix.Signal(n)
		if s.send != nil {
			s.send(got)
			continue
		}
		s.held = append(s.held, got)
		switch got {
		case unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP:
		default:
			s.cancel(exitCode(128 + int(n)))
		}
	}
}

// interrupted gives the exit code instead of err when a signal is the reason.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// forward passes signals on for the rest of this program's life, those held
// back first. One that arrives after the process ended meets nobody.
func (s *signals) forward(send func(unix.Signal) error, t *terminal) {
	var b [64]byte
	if n, _ := unix.Read(s.fd, b[:]); n > 0 { // nothing has waited for these yet
		s.take(b[:n])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send = func(got unix.Signal) {
		if got == unix.SIGWINCH && t != nil {
			t.resize()
		} else {
			_ = send(got)
		}
	}
	for _, got := range s.held {
		s.send(got)
	}
}

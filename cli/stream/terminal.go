package stream

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
)

// CheckInput refuses a terminal whose input is not one.
func CheckInput(in any, stdin, tty bool) error {
	if !stdin || !tty {
		return nil
	}
	if _, ok := command.Terminal(in); !ok {
		return fault.New(fault.Invalid, "the input device is not a TTY")
	}
	return nil
}

// Raw puts a terminal in raw mode, so that every key reaches the process. The
// returned function restores it and may be called more than once; a signal
// that ends this program restores it too. Anything else than a terminal is
// left as it is.
func Raw(in any) (restore func(), err error) {
	fd, ok := command.Terminal(in)
	if !ok {
		return func() {}, nil
	}
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	var once sync.Once
	restore = func() {
		once.Do(func() {
			signal.Stop(ending)
			close(ending)
			term.Restore(fd, state)
		})
	}
	go func() {
		if sig, ok := <-ending; ok {
			term.Restore(fd, state)
			os.Exit(128 + int(sig.(syscall.Signal)))
		}
	}()
	return restore, nil
}

// Hide makes a terminal stop to show what is typed; lines and signals stay as
// they are, termios(3).
func Hide(in any) (restore func(), err error) {
	fd, ok := command.Terminal(in)
	if !ok {
		return func() {}, nil
	}
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return nil, err
	}
	return func() { unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil
}

// Size returns the size of a terminal, zeros for anything else.
func Size(out any) (height, width uint) {
	fd, ok := command.Terminal(out)
	if !ok {
		return 0, 0
	}
	w, h, err := term.GetSize(fd)
	if err != nil {
		return 0, 0
	}
	return uint(h), uint(w)
}

// FollowSize calls resize with the size of the terminal now and whenever it
// changes, until the returned function is called.
func FollowSize(out any, resize func(height, width uint)) (stop func()) {
	if _, ok := command.Terminal(out); !ok {
		return func() {}
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	changed <- syscall.SIGWINCH
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range changed {
			if h, w := Size(out); h != 0 || w != 0 {
				resize(h, w)
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		close(changed)
		<-done
	}
}

// Signals holds the signals that this program gets from its making on, until
// the program ends: giving them back would cost as much time as taking them.
type Signals struct{ got chan os.Signal }

// early are the signals that may come while a container is being started. Each
// costs the Go runtime a switch between threads, 35 µs: all of them would take
// longer than everything else that this program does.
var early = [...]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// laterAfter is how long a container has run when the other signals are taken.
const laterAfter = 30 * time.Millisecond

// CatchSignals starts to hold signals back.
func CatchSignals() *Signals {
	s := &Signals{make(chan os.Signal, 128)}
	signal.Notify(s.got, early[:]...)
	return s
}

// enough is how many SIGINT and SIGTERM a user sends to a program that obeys
// none before he wants to be rid of this one.
const enough = 3

// Forward sends the signals on by name, those held back first, until the
// context ends. It calls giveUp when the process minds none of those that ask it
// to end.
func (s *Signals) Forward(ctx context.Context, kill func(ctx context.Context, name string), giveUp func()) {
	asked := 0
	later := time.NewTimer(laterAfter)
	defer later.Stop()
	for {
		select {
		case <-later.C:
			signal.Notify(s.got)
		case sig := <-s.got:
			switch sig {
			case syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG, syscall.SIGWINCH:
				// The first two concern this program; the Go runtime wakes
				// its threads by SIGURG; sizes go their own way.
				continue
			}
			name := unix.SignalName(sig.(syscall.Signal))
			if name == "" {
				name = strconv.Itoa(int(sig.(syscall.Signal)))
			}
			kill(ctx, strings.TrimPrefix(name, "SIG"))
			if sig == syscall.SIGINT || sig == syscall.SIGTERM {
				if asked++; asked == enough {
					giveUp()
				}
			}
		case <-ctx.Done():
			return
		}
	}
}

package supervise

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/internal/stage"
)

// StarterArg is the one argument of the program where it is a starter: a process
// that executes the supervising ones. The daemon could itself, but has two
// descriptors for each container, and the kernel looks at each of them whenever it
// executes something. The children are the daemon's all the same (CLONE_PARENT).
const StarterArg = "starter"

// The descriptors of a starter, and what it hands on.
const (
	StarterConn  = 3 // to the daemon, whose end ends it
	StarterExe   = 4
	StarterStage = 5 // may be missing
)

// Environment is that of the supervising processes: see keeper.thrift.
var Environment = []string{"GOMAXPROCS=1", "GOGC=50", "GOMEMLIMIT=16MiB"}

// SpawnRequest comes with one end of a socket, the new process's connection to the
// daemon; Started is the answer.
const MethodSpawn = "spawn"

// starterTime is what a starter may take for one process, which is a millisecond's
// work. One that was stopped must not stop the daemon.
var starterTime = 10 * time.Second

// starter is the daemon's side.
type starter struct {
	mu   sync.Mutex // held by one request
	conn *seqpacket.Conn
	pid  int
}

func newStarter(exe, stage *os.File) (*starter, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	conn, theirs, err := seqpacket.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), theirs.Fd(), exe.Fd()}
	if stage != nil {
		files = append(files, stage.Fd())
	}
	pid, err := syscall.ForkExec(ownFile(exe), []string{"tare-supervise", StarterArg}, &syscall.ProcAttr{
		Dir: "/", Env: Environment, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot start the process that starts supervising ones: %w", os.NewSyscallError("fork/exec", err))
	}
	return &starter{conn: conn, pid: pid}, nil
}

// ownFile is a path to a file of this process's: fork and exec moves those of the
// child to numbers that depend on what is open here.
func ownFile(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// spawn has a process started that answers at the other end of theirs.
func (s *starter) spawn(theirs *os.File) (pid int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer time.AfterFunc(starterTime, func() { s.conn.Close() }).Stop()
	if err := s.conn.Send(encode(Message{Method: MethodSpawn}), theirs); err != nil {
		return 0, err
	}
	answer, _, err := s.conn.Recv()
	if err != nil {
		return 0, err
	}
	var m Message
	var started Started
	if err := json.Unmarshal(answer, &m); err != nil {
		return 0, err
	}
	if m.Error != nil {
		return 0, m.Error.Err()
	}
	if err := json.Unmarshal(m.Body, &started); err != nil {
		return 0, err
	}
	return started.Pid, nil
}

// close ends the starter, whatever it does. What it started goes on.
func (s *starter) close() {
	s.conn.Close()
	_ = syscall.Kill(s.pid, syscall.SIGKILL)
	collect(s.pid)
}

// ServeStarts is the starter's side, until the daemon is gone.
func ServeStarts() error {
	conn, err := seqpacket.New(StarterConn)
	if err != nil {
		return err
	}
	syscall.CloseOnExec(StarterExe)
	exe, stage := os.NewFile(StarterExe, "exe"), stage.At(StarterStage) // where it is missing something else may be
	for {
		_, files, err := conn.Recv()
		if err != nil {
			return nil // the daemon's end
		}
		var m Message
		if len(files) != 1 {
			err = fault.New(fault.Invalid, "a process was to be started with %d sockets instead of one", len(files))
		} else {
			var s Started
			if s.Pid, err = spawn(exe, files[0], stage, syscall.CLONE_PARENT); err == nil {
				m.Body = encode(s)
			}
		}
		for _, f := range files {
			f.Close()
		}
		m.Error = NewWireError(err)
		if err := conn.Send(encode(m)); err != nil {
			return nil
		}
	}
}

// spawn executes a supervising process with its end of a socket and the stage, if
// there is one.
func spawn(exe, theirs, stage *os.File, flags uintptr) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	// By package os each would hold a descriptor for its number, which costs every
	// later start: its child has to close them all.
	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), theirs.Fd()}
	if stage != nil {
		files = append(files, stage.Fd())
	}
	pid, err = syscall.ForkExec(ownFile(exe), []string{"tare-supervise"}, &syscall.ProcAttr{
		Dir: "/", Env: Environment, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | flags},
	})
	if err != nil {
		return 0, fmt.Errorf("cannot start the supervising process: %w", os.NewSyscallError("fork/exec", err))
	}
	return pid, nil
}

package keeper

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/logs"
)

// stdio is our side of the streams of one process, and until the process is
// made its side of them too.
type stdio struct {
	in       *os.File // writes to the process's stdin; nil without one
	out, err *os.File // reads its output; err is nil with a terminal
	tty      bool
	terminal atomic.Pointer[os.File] // out, for those who do not know whether it is there yet
	slave    *os.File                // keeps the terminal from hanging up while nobody has it open

	child   [3]*os.File // the process's side, without a terminal
	console *os.File    // where its runtime sends the terminal's master
	master  int         // where the master arrives; -1 without a terminal

	pumps sync.WaitGroup
}

// newStdio makes pipes, or with tty a socket that receives a terminal.
func newStdio(tty, openStdin bool) (*stdio, error) {
	s := &stdio{tty: tty, master: -1}
	if err := s.open(openStdin); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stdio) open(openStdin bool) (err error) {
	if s.tty {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socketpair", err)
		}
		s.master, s.console = fds[0], os.NewFile(uintptr(fds[1]), "console")
		return nil
	}
	if openStdin {
		s.child[0], s.in, err = pipe(true)
	} else {
		s.child[0], err = os.Open(os.DevNull)
	}
	if err != nil {
		return err
	}
	if s.out, s.child[1], err = pipe(false); err != nil {
		return err
	}
	s.err, s.child[2], err = pipe(false)
	return err
}

// newNull makes stdio that discards all output.
func newNull() (*stdio, error) {
	s := &stdio{master: -1}
	for i := range s.child {
		f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			s.close()
			return nil, err
		}
		s.child[i] = f
	}
	return s, nil
}

// pipe makes a pipe of which only our end, the writing one with write, waits
// in the poller: the other end goes to a program, which would be surprised to
// find its output non-blocking.
func pipe(write bool) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	ours := fds[0]
	if write {
		ours = fds[1]
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// made is called when the process exists: its side is closed here, and the
// terminal is received.
func (s *stdio) made() error {
	s.closeChild()
	if !s.tty {
		return nil
	}
	var oob [64]byte
	var data [4096]byte // the name of the terminal comes along
	// it is there already; the bound is for a runtime that sends none
	wait := unix.Timeval{Sec: 10}
	if err := unix.SetsockoptTimeval(s.master, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	_, n, _, _, err := unix.Recvmsg(s.master, data[:], oob[:], unix.MSG_CMSG_CLOEXEC)
	for err == unix.EINTR { // a call with a time-out is not begun again after a signal, signal(7)
		_, n, _, _, err = unix.Recvmsg(s.master, data[:], oob[:], unix.MSG_CMSG_CLOEXEC)
	}
	unix.Close(s.master)
	s.master = -1
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(cmsgs) != 1 {
		return fault.New(fault.Internal, "the runtime sent no terminal")
	}
	fds, err := unix.ParseUnixRights(&cmsgs[0])
	if err != nil || len(fds) != 1 {
		return fault.New(fault.Internal, "the runtime sent no terminal")
	}
	return s.useMaster(fds[0])
}

func (s *stdio) useMaster(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno == 0 {
		s.slave = os.NewFile(peer, "terminal")
	}
	s.out = os.NewFile(uintptr(fd), "console")
	s.in = s.out
	s.terminal.Store(s.out)
	return nil
}

// resize sets the terminal's size in characters.
func (s *stdio) resize(height, width uint16) error {
	if !s.tty {
		return fault.New(fault.Invalid, "the process has no terminal")
	}
	terminal := s.terminal.Load()
	if terminal == nil {
		return fault.New(fault.Conflict, "the process has no terminal yet: try again")
	}
	rc, err := terminal.SyscallConn()
	if err != nil {
		return errGone()
	}
	var serr error
	if err := rc.Control(func(fd uintptr) {
		serr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	}); err != nil {
		return errGone()
	}
	return serr
}

// pump starts to move the output to o. What is on its way bars r.
func (s *stdio) pump(o *output, r *renewal) {
	if s.out != nil {
		s.pumps.Go(func() { copyOutput(o, r, logs.Stdout, s.out) })
	}
	if s.err != nil {
		s.pumps.Go(func() { copyOutput(o, r, logs.Stderr, s.err) })
	}
}

// chunkSize is what is read at once: the usual capacity of a pipe.
const chunkSize = 64 << 10

// chunks are the buffers of output that is being moved. They are taken only
// when there is something to read, and a silent container has none.
var chunks = sync.Pool{New: func() any { b := make([]byte, logs.HeaderSize+chunkSize); return &b }}

// readChunk waits for something to read and reads once, into a buffer behind
// room for a frame's header. The caller gives the buffer back to chunks, and
// unbars r. At the end and on an error there is no buffer, and nothing is barred.
func readChunk(rc syscall.RawConn, r *renewal) (buf *[]byte, n int, err error) {
	perr := rc.Read(func(fd uintptr) bool {
		r.bar()
		buf = chunks.Get().(*[]byte)
		for {
			n, err = unix.Read(int(fd), (*buf)[logs.HeaderSize:])
			if err != unix.EINTR {
				break
			}
		}
		if err == nil && n > 0 {
			return true
		}
		chunks.Put(buf)
		buf = nil
		r.unbar()
		return err != unix.EAGAIN
	})
	if perr != nil {
		err = perr
	}
	return buf, n, err
}

// copyOutput moves what comes from f to o until the end of f, or until drain's
// time is over.
func copyOutput(o *output, r *renewal, stream logs.Stream, f *os.File) {
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	for {
		buf, n, err := readChunk(rc, r)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			copyRest(o, stream, rc)
		}
		if buf == nil { // a terminal ends with EIO
			return
		}
		o.pass(stream, buf, n)
		r.unbar()
	}
}

// terminalRoom is at least what a terminal holds that is on its way to its
// master: its own buffer, and the queue before it, see TTYB_DEFAULT_MEM_LIMIT in
// the kernel's tty_buffer.c.
const terminalRoom = 128 << 10

// copyRest moves what a process has left in a pipe or terminal that others hold
// open. The time may have been over before it was read at all, on a busy machine
// or a slow disk, so it is read without waiting: until there is nothing, or as
// much as there can have been when the process ended.
func copyRest(o *output, stream logs.Stream, rc syscall.RawConn) {
	_ = rc.Control(func(fd uintptr) {
		left := terminalRoom
		if size, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0); err == nil {
			left = size
		}
		for left > 0 {
			buf := chunks.Get().(*[]byte)
			n, err := unix.Read(int(fd), (*buf)[logs.HeaderSize:])
			switch {
			case err == unix.EINTR:
				chunks.Put(buf)
			case err != nil || n <= 0:
				chunks.Put(buf)
				return
			default:
				o.pass(stream, buf, n)
				left -= n
			}
		}
	})
}

// drain waits until all output of the process, which has ended, was moved, and
// what others write who hold the same pipe, no longer than limit for theirs.
func (s *stdio) drain(limit time.Duration) {
	if s.slave != nil {
		s.slave.Close() // the end of the terminal can be read now
		s.slave = nil
	}
	deadline := time.Now().Add(limit)
	for _, f := range []*os.File{s.out, s.err} {
		if f != nil {
			f.SetReadDeadline(deadline)
		}
	}
	s.pumps.Wait()
}

// writeStdin passes input to the process; an error means that it takes no more.
func (s *stdio) writeStdin(p []byte) error {
	if s.in == nil {
		return errors.ErrUnsupported
	}
	_, err := s.in.Write(p)
	return err
}

// closeStdin ends the process's input. A terminal's cannot be ended alone.
func (s *stdio) closeStdin() {
	if s.in != nil && !s.tty {
		s.in.Close()
	}
}

func (s *stdio) closeChild() {
	for i, f := range s.child {
		if f != nil {
			f.Close()
			s.child[i] = nil
		}
	}
	if s.console != nil {
		s.console.Close()
		s.console = nil
	}
}

// close closes both sides.
func (s *stdio) close() {
	s.closeChild()
	if s.master >= 0 {
		unix.Close(s.master)
		s.master = -1
	}
	for _, f := range []*os.File{s.in, s.out, s.err, s.slave} {
		if f != nil {
			f.Close()
		}
	}
}

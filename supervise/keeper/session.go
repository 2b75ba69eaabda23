package keeper

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/supervise"
)

const (
	// sessionBehind is how many bytes a client may be behind the process
	// before the process has to wait for it.
	sessionBehind = 64 << 10
	// sessionLimit is how many bytes are kept for a client once its process
	// has ended. More than pipes hold comes only from a process that is left
	// behind, and a client that reads as little is dropped.
	sessionLimit = 8 << 20
	// lingerTime is how long a client may keep its socket open after it was
	// shut down.
	lingerTime = 2 * time.Second
)

// session is one attached client: a socket of its own, bytes of output on
// their way to it, and its input.
//
// The output goes straight from the pump into the socket as long as the socket
// takes it; otherwise it queues for the flush goroutine. A second goroutine
// reads the input, notices when the client is gone, and closes the socket.
type session struct {
	o     supervise.AttachOptions
	conn  *os.File
	rc    syscall.RawConn
	stdio *stdio   // whose stdin the input goes to
	held  *os.File // a pipe to whose end everything waits; nil for none

	closeStdin bool   // the end of the input is passed on
	detached   func() // called on the detach keys
	left       func() // called when the client is gone or done

	mu       sync.Mutex
	room     sync.Cond
	prelude  func() error // writes what comes before the queue
	queue    []byte
	behind   int  // bytes in the queue and in flush's hands
	flushing bool // flush runs
	hurried  bool
	done     bool // nothing more is taken in; the socket is shut down behind the queue
	dead     bool // the client is gone
}

// newSession takes the socket in f over, also when it fails.
func newSession(o supervise.AttachOptions, f *os.File, s *stdio) (*session, error) {
	defer f.Close()
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, derr := -1, error(nil)
	if err := rc.Control(func(old uintptr) {
		fd, derr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, err
	}
	if derr == nil {
		derr = unix.SetNonblock(fd, true)
	}
	if derr != nil {
		return nil, derr
	}
	ses := &session{o: o, conn: os.NewFile(uintptr(fd), "client"), stdio: s}
	ses.room.L = &ses.mu
	if ses.rc, err = ses.conn.SyscallConn(); err != nil {
		ses.conn.Close()
		return nil, err
	}
	return ses, nil
}

// prepare readies the replay. While it runs nothing passes through the output
// that log belongs to.
func (s *session) prepare(log *journal) {
	var replay func() error
	switch {
	case s.o.Logs && log != nil:
		replay = s.replayOf(log)
	case s.held == nil:
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushing = true
	s.prelude = func() error {
		s.awaitRelease()
		if replay == nil {
			return nil
		}
		return replay()
	}
	go s.flush()
}

// awaitRelease waits until the client may get something. The daemon's end is one,
// too.
func (s *session) awaitRelease() {
	if s.held != nil {
		_, _ = s.held.Read(make([]byte, 1))
		s.held.Close()
	}
}

// replayOf returns the writing of what log has taken in up to now.
func (s *session) replayOf(log *journal) func() error {
	stored, rest := log.snapshot(s.o.LogsAt)
	return func() error {
		w := bufio.NewWriterSize(s.conn, chunkSize) // a write for each line costs a client's socket its room
		if stored != nil {                          // otherwise it cannot be read: nothing to replay
			defer stored.Close()
			if _, err := stored.Each(func(e logs.Entry) error {
				stream := logs.Stdout
				if e.Stream == logs.Stderr.String() {
					stream = logs.Stderr
				}
				return s.replayChunk(w, stream, e.Line)
			}); err != nil {
				return err
			}
		}
		for _, c := range rest {
			if err := s.replayChunk(w, c.stream, c.bytes); err != nil {
				return err
			}
		}
		return w.Flush()
	}
}

func (s *session) replayChunk(w io.Writer, stream logs.Stream, p []byte) error {
	if !s.wants(stream) || len(p) == 0 {
		return nil
	}
	if s.o.Multiplexed {
		header := logs.Header(stream, len(p))
		if _, err := w.Write(header[:]); err != nil {
			return err
		}
	}
	_, err := w.Write(p)
	return err
}

func (s *session) wants(stream logs.Stream) bool {
	if stream == logs.Stderr {
		return s.o.Stderr
	}
	return s.o.Stdout
}

// send takes in one chunk, framed. It does not block.
func (s *session) send(stream logs.Stream, frame []byte) {
	if !s.wants(stream) {
		return
	}
	if !s.o.Multiplexed {
		frame = frame[logs.HeaderSize:]
	}
	s.put(frame)
}

// tell sends the exit code to a client that wants it on the stream.
func (s *session) tell(code int) {
	if s.o.Exit && s.o.Multiplexed {
		header := logs.Header(supervise.StreamExit, 4)
		s.put(binary.BigEndian.AppendUint32(header[:], uint32(code)))
	}
}

// put takes in bytes as they are to be written.
func (s *session) put(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done || s.dead {
		return
	}
	if !s.flushing {
		n, err := s.tryWrite(frame)
		if err != nil {
			s.dieLocked()
			return
		}
		frame = frame[n:]
	}
	if len(frame) == 0 {
		return
	}
	if s.hurried && s.behind > sessionLimit {
		s.dieLocked()
		return
	}
	s.queue = append(s.queue, frame...)
	s.behind += len(frame)
	if !s.flushing {
		s.flushing = true
		go s.flush()
	}
}

// tryWrite writes what the socket takes at once.
func (s *session) tryWrite(p []byte) (n int, err error) {
	werr := s.rc.Write(func(fd uintptr) bool {
		for n < len(p) {
			var m int
			m, err = unix.SendmsgN(int(fd), p[n:], nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			if err == unix.EINTR {
				continue
			}
			if err == unix.EAGAIN {
				err = nil
				break
			}
			if err != nil {
				break
			}
			n += m
		}
		return true
	})
	if werr != nil {
		err = werr
	}
	return n, err
}

// flush writes the prelude and the queue, and shuts the socket down if the
// session is done by then.
func (s *session) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prelude != nil {
		s.mu.Unlock()
		err := s.prelude()
		s.mu.Lock()
		s.prelude = nil
		if err != nil {
			s.dieLocked()
		}
	}
	for len(s.queue) > 0 && !s.dead {
		p := s.queue
		s.queue = nil
		s.mu.Unlock()
		_, err := s.conn.Write(p)
		s.mu.Lock()
		s.behind -= len(p)
		s.room.Broadcast()
		if err != nil {
			s.dieLocked()
		}
	}
	s.flushing = false
	if s.done {
		s.shutLocked()
	}
}

// waitRoom waits until the client is not far behind, or it does not matter.
func (s *session) waitRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.behind > sessionBehind && !s.hurried && !s.dead {
		s.room.Wait()
	}
}

func (s *session) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurried = true
	s.room.Broadcast()
}

// finish ends the session behind what was taken in so far.
func (s *session) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return
	}
	s.done, s.hurried = true, true
	s.room.Broadcast()
	if !s.flushing {
		s.shutLocked()
	}
}

// shutLocked tells the client that nothing more comes, and leaves it time to
// close its end: to close ours while input is unread would make the client's
// reads fail with ECONNRESET.
func (s *session) shutLocked() {
	s.rc.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_WR) })
	s.conn.SetReadDeadline(time.Now().Add(lingerTime))
}

// die gives the client up.
func (s *session) die() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dieLocked()
}

func (s *session) dieLocked() {
	if s.dead {
		return
	}
	s.dead, s.queue, s.behind = true, nil, 0
	s.room.Broadcast()
	now := time.Now()
	s.conn.SetDeadline(now) // flush and the reader come back
}

// run reads the input until the end of the session, and closes the socket.
func (s *session) run() {
	in := input{s: s, keys: s.keys()}
	if !in.take(s.o.Buffered) {
		in.read()
	}
	s.left()
	s.finish()
	s.linger()
	s.die()
	s.conn.Close()
}

// keys returns the detach keys where they count.
func (s *session) keys() detachKeys {
	if !s.stdio.tty {
		return detachKeys{}
	}
	return detachKeys{keys: s.o.DetachKeys}
}

// linger discards input until the client has closed its end or took too long.
// The deadline is set once the socket is shut down.
func (s *session) linger() {
	var discard [512]byte
	for {
		if _, err := s.conn.Read(discard[:]); err == io.EOF {
			break
		} else if err != nil {
			return
		}
	}
	s.awaitHangup()
}

// awaitHangup waits, after the end of the input, until the client has closed
// its socket altogether, or for the read deadline.
func (s *session) awaitHangup() {
	s.rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		return err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
}

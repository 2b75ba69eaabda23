package dns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/seqpacket"
)

// ErrUnknown is Set's when the process does not have the sandbox's outlets.
var ErrUnknown = errors.New("the resolver does not have the sockets of this container")

// Conn is a connection to the process. Its methods may be called at the same
// time. An error other than the process's own answer means that the connection
// is of no more use.
type Conn struct {
	// Patience is how long the process may take for an answer; it may be changed
	// before the first one is wanted.
	Patience time.Duration

	conn    *seqpacket.Conn
	peer    int // the process; 0 if that is not known
	answers chan Answer
	gone    chan struct{}
	mu      sync.Mutex // held from a request to its answer
}

const patience = 5 * time.Second

// Dial connects to a process that listens at path.
func Dial(path string) (*Conn, error) {
	c, err := seqpacket.Dial(path)
	if err != nil {
		return nil, err
	}
	fd, err := c.Descriptor()
	if err != nil {
		c.Close()
		return nil, err
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		c.Close()
		return nil, os.NewSyscallError("getsockopt", err)
	}
	conn := NewConn(c)
	conn.peer = int(peer.Pid)
	return conn, nil
}

// NewConn takes over an end of a pair whose other end a new process has.
func NewConn(conn *seqpacket.Conn) *Conn {
	c := &Conn{Patience: patience, conn: conn, answers: make(chan Answer, 1), gone: make(chan struct{})}
	go c.read()
	return c
}

// read hands on the answers until the process or the connection ends.
func (c *Conn) read() {
	defer close(c.gone)
	for {
		msg, stray, err := c.conn.Recv()
		for _, f := range stray {
			f.Close()
		}
		if err != nil {
			return
		}
		var a Answer
		if err := json.Unmarshal(msg, &a); err != nil {
			a = Answer{Error: "the resolver's answer is not understood: " + err.Error()}
		}
		select {
		case c.answers <- a:
		default: // to nothing that was asked
			c.conn.Close()
		}
	}
}

// Gone is closed when the connection has ended, as it has when the process has.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Kill ends the process, when it does not answer. The connection must be one of
// Dial's: the kernel does not know who has the other end of a pair.
func (c *Conn) Kill() error {
	if c.peer <= 0 || c.peer == os.Getpid() {
		return errors.New("the resolver's process is not known")
	}
	if err := unix.Kill(c.peer, unix.SIGKILL); err != nil && err != unix.ESRCH {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

// Hello asks the process who it is.
func (c *Conn) Hello(ctx context.Context) (*Hello, error) {
	a, err := c.call(ctx, Request{Op: OpHello})
	if err == nil && a.Hello == nil {
		err = errors.New("the resolver gives no answer that is understood")
	}
	return a.Hello, err
}

// Set tells of a sandbox as it is now. Without outlets the process must have
// them already, or the error is ErrUnknown. They stay the caller's.
func (c *Conn) Set(ctx context.Context, s Sandbox, o *Outlets) error {
	var files []*os.File
	if o != nil {
		files = o.Files()
	}
	a, err := c.call(ctx, Request{Op: OpSet, Sandbox: &s}, files...)
	if err == nil && a.Unknown {
		return ErrUnknown
	}
	return err
}

// Drop takes a sandbox back; when it returns nobody finds its names any more.
func (c *Conn) Drop(ctx context.Context, id string) error {
	_, err := c.call(ctx, Request{Op: OpDrop, ID: id})
	return err
}

// Replace makes the process become the program, with all that it has.
func (c *Conn) Replace(ctx context.Context, program *os.File) error {
	_, err := c.call(ctx, Request{Op: OpReplace}, program)
	return err
}

// refused is what the process answered.
type refused string

func (r refused) Error() string { return string(r) }

// IsAnswer tells whether the error is the process's answer, so that the
// connection is whole.
func IsAnswer(err error) bool {
	var r refused
	return errors.As(err, &r) || errors.Is(err, ErrUnknown)
}

// call waits for the answer. One that does not come in time leaves the
// connection without use, since it might come later.
func (c *Conn) call(ctx context.Context, r Request, files ...*os.File) (Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return Answer{}, err
	}
	if err := c.conn.Send(encode(r), files...); err != nil {
		return Answer{}, fmt.Errorf("send to the resolver: %w", err)
	}
	late := time.NewTimer(c.Patience)
	defer late.Stop()
	select {
	case a := <-c.answers:
		if a.Error != "" {
			return a, refused(a.Error)
		}
		return a, nil
	case <-c.gone:
		return Answer{}, errors.New("the resolver has ended")
	case <-late.C:
		c.conn.Close()
		return Answer{}, errors.New("the resolver does not answer")
	}
}

// ProgramOf identifies the version of a program by its file. A file that was
// replaced differs even when it has the same content.
func ProgramOf(path string) (Program, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Program{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return Program{Dev: uint64(st.Dev), Inode: st.Ino, Size: uint64(st.Size), Changed: uint64(st.Mtim.Nano())}, nil
}

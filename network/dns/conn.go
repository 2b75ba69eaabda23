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
	conn *seqpacket.Conn
	mu   sync.Mutex // held from a request to its answer
}

// patience is how long the process may take for an answer.
const patience = 5 * time.Second

// Dial connects to a process that listens at path.
func Dial(path string) (*Conn, error) {
	c, err := seqpacket.Dial(path)
	if err != nil {
		return nil, err
	}
	return &Conn{conn: c}, nil
}

// NewConn takes over an end of a pair whose other end a new process has.
func NewConn(c *seqpacket.Conn) *Conn { return &Conn{conn: c} }

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

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
	late := time.AfterFunc(patience, func() { c.conn.Close() })
	defer late.Stop()
	if err := c.conn.Send(encode(r), files...); err != nil {
		return Answer{}, fmt.Errorf("send to the resolver: %w", err)
	}
	msg, stray, err := c.conn.Recv()
	for _, f := range stray {
		f.Close()
	}
	if err != nil {
		return Answer{}, fmt.Errorf("wait for the resolver's answer: %w", err)
	}
	var a Answer
	if err := json.Unmarshal(msg, &a); err != nil {
		return a, fmt.Errorf("read the resolver's answer: %w", err)
	}
	if a.Error != "" {
		return a, refused(a.Error)
	}
	return a, nil
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

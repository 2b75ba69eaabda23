package container

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/supervise"
)

// AttachOptions as in POST /containers/{id}/attach.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Stream                bool // live input and output
	Logs                  bool // what was written before, first
	Raw                   bool // without frames, with a terminal or not
	DetachKeys            string
}

// Hijack takes a client's connection out of HTTP: it returns the connection, the
// answer's head, which tells the client that it is attached and is still to be
// written, and the bytes that were read from the connection already.
type Hijack func(tty bool) (conn net.Conn, head, buffered []byte, err error)

// Attach connects a client's streams to the container. The client's socket is
// handed to the supervising process, so the stream goes on when this daemon
// ends. A container that was not started yet gets its clients when it is.
func (s *Service) Attach(ctx context.Context, nameOrID string, o AttachOptions, hijack Hijack) error {
	keys, err := parseDetachKeys(o.DetachKeys)
	if err != nil {
		return err
	}
	r, err := s.store.find(nameOrID)
	if err != nil {
		return err
	}
	if r.State == Paused {
		return fault.New(fault.Conflict, "container %s is paused, unpause the container before attach", nameOrID)
	}
	if r.State == Restarting {
		return fault.New(fault.Conflict, "container %s is restarting, wait until the container is running", r.ID)
	}
	o.Logs = o.Logs && s.logs.readable(&r)
	c := &caller{containers: s, live: s.lives.of(r.ID), record: r, asked: o, options: supervise.AttachOptions{
		Stdin: o.Stdin && o.Stream && r.Config.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr,
		Multiplexed: !r.Config.Tty && !o.Raw, DetachKeys: keys, Logs: o.Logs, NoStream: !o.Stream,
	}}
	seat, err := c.sit()
	if err != nil {
		return err
	}
	defer c.live.vacate(seat)
	conn, head, buffered, err := hijack(r.Config.Tty)
	if err != nil {
		return err
	}
	if c.client, err = hand(conn, head); err != nil {
		return err
	}
	c.options.Buffered = buffered
	given, err := c.connect(ctx, seat)
	if !given {
		err = errors.Join(err, c.client.greet()) // where nothing has come behind it
		c.client.close()                         // the other process has its own descriptor, or the session is over
	}
	if err != nil {
		return err
	}
	s.publish(r, events.ActionAttach)
	return c.client.wait()
}

// caller is a client on its way to the supervising process.
type caller struct {
	containers *Service
	live       *live
	record     Record
	asked      AttachOptions
	client     *handed
	options    supervise.AttachOptions
}

// connect attaches the client to the run, or lets it wait for one on its seat;
// given tells that it waits, and its socket is the waiting room's.
func (c *caller) connect(ctx context.Context, seat *seat) (given bool, err error) {
	if c.asked.Logs && c.asked.Stream && !c.record.State.Live() {
		// What it has said comes now, and not with its next start.
		release, err := c.replay(logs.Position{})
		release()
		if err != nil {
			return false, err
		}
	}
	if seat != nil {
		if err := c.client.greet(); err != nil {
			return false, err
		}
	}
	if c.live.occupy(seat, attachment{c.options, c.client}) {
		return true, nil
	}
	keeper, given, err := c.await()
	switch {
	case err != nil || given:
		return given, err
	case keeper != nil:
		return false, c.attach(ctx, keeper)
	case c.asked.Logs: // only the log, of a container that does not run
		release, err := c.replay(logs.Position{})
		release()
		return false, err
	}
	return false, nil
}

// presentLocked finds the container, whose live is locked, and its present run; nil
// without one. A run is none any more once its end is on record: who sees that
// end and attaches means the next run.
func (c *caller) presentLocked() (*run, error) {
	if _, err := c.containers.store.find(c.record.ID); err != nil { // removed meanwhile
		c.containers.lives.forget(c.record.ID)
		return nil, err
	}
	if run := c.live.run; run != nil && !run.over {
		return run, nil
	}
	return nil, nil
}

// sit takes a place in the next run for a client that is about to be told that it
// is attached; nil where there is a run, or no wish to hear of one.
func (c *caller) sit() (*seat, error) {
	c.live.mu.Lock()
	defer c.live.mu.Unlock()
	run, err := c.presentLocked()
	if err != nil || run != nil || !c.asked.Stream {
		return nil, err
	}
	return c.live.addLocked(), nil
}

// await finds the process that supervises the present run. Without a run the
// client waits for the next, if it wants to hear more than the log.
func (c *caller) await() (keeper *supervise.Keeper, waits bool, err error) {
	l := c.live
	l.mu.Lock()
	defer l.mu.Unlock()
	run, err := c.presentLocked()
	switch {
	case err != nil:
		return nil, false, err
	case run != nil && run.keeper == nil:
		return nil, false, run.refused
	case run != nil:
		return run.keeper, false, nil
	case c.asked.Stream:
		l.addLocked().takeLocked(attachment{c.options, c.client})
	}
	return nil, c.asked.Stream, nil
}

// attach hands the socket to the process. From the head on the client may rely
// on it that it misses nothing, so the process has the socket before that, and the
// output waits behind the head; or else the log has it.
func (c *caller) attach(ctx context.Context, keeper *supervise.Keeper) error {
	if !c.asked.Logs && c.client.head != nil {
		err := keeper.AttachHeld(ctx, c.options, c.client.file, c.client.welcome)
		if !errors.Is(err, fault.Invalid) {
			return errors.Join(err, c.client.greet()) // it may have just ended
		}
		// A process of an older version wants the head to be there.
	}
	if err := c.client.welcome(); err != nil {
		return err
	}
	release := func() {}
	if c.asked.Logs && c.options.LogsAt == (logs.Position{}) {
		// The other process reads no compressed files: what is there comes from here.
		var err error
		if release, err = c.replay(logs.Position{}); err != nil {
			return err
		}
	}
	err := keeper.Attach(ctx, c.options, c.client.file)
	release()
	if c.asked.Logs && (errors.Is(err, fault.Conflict) || errors.Is(err, fault.Unavailable)) {
		// It has just ended, and its log has all that it said.
		release, err = c.replay(c.options.LogsAt)
		release()
	}
	return err
}

// replay writes the log to the client from a place on, and notes where that
// ended. Until release is called nothing of the log changes its form.
func (c *caller) replay(from logs.Position) (release func(), err error) {
	at, release, err := c.containers.logs.replay(&c.record, c.asked, from, c.client)
	if err == nil {
		c.options.LogsAt, c.options.LogsFrom = at, at.Offset
	}
	return release, err
}

// handed is a client's socket on its way to another process: the socket
// itself where the kernel has it, or for TLS one end of a pair whose other end
// is copied to and from the client.
type handed struct {
	file   *os.File
	copied chan struct{} // closed when the copying is over; nil without
	head   []byte        // to be written yet
	ready  bool          // the head was read, or waited for long enough
}

// headGrace bounds the wait for a client to read the head. One that is there reads
// it as soon as it comes to run, which on a busy machine takes a while; the bound
// is for one that sends and never reads.
const headGrace = 5 * time.Second

// letRead waits until the client has read the head of the answer. Some clients
// (Docker's SDK for Python is one) read it through a buffer and what follows
// past that buffer: the first output of a quick process would be lost there, if
// it were in the socket with the head. A client that attaches before the start
// needs no wait, as it has read the head before it asks for the start.
func (h *handed) letRead() {
	if h.ready {
		return
	}
	h.ready = true
	raw, err := h.file.SyscallConn()
	if err != nil {
		return
	}
	pause := 20 * time.Microsecond
	for deadline := time.Now().Add(headGrace); ; time.Sleep(pause) {
		unread := 0 // bytes that the other end of a unix(7) socket has not taken
		cerr := raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if cerr != nil || err != nil || unread == 0 || time.Now().After(deadline) || h.gone() {
			return
		}
		pause = min(pause*11/10, time.Millisecond)
	}
}

// greet writes the head, once.
func (h *handed) greet() error {
	head := h.head
	h.head = nil
	if head == nil {
		return nil
	}
	_, err := h.file.Write(head)
	return err
}

// welcome writes the head and lets the client read it.
func (h *handed) welcome() error {
	err := h.greet()
	h.letRead()
	return err
}

// Write writes to the client.
func (h *handed) Write(p []byte) (int, error) {
	if err := h.welcome(); err != nil {
		return 0, err
	}
	return h.file.Write(p)
}

// hand takes the connection over; conn is closed, or copied from, after it.
func hand(conn net.Conn, head []byte) (*handed, error) {
	if c, ok := conn.(interface{ File() (*os.File, error) }); ok {
		f, err := c.File()
		conn.Close()
		return &handed{file: f, head: head}, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		conn.Close()
		return nil, err
	}
	ours := os.NewFile(uintptr(pair[0]), "client")
	near, err := net.FileConn(ours)
	ours.Close()
	theirs := os.NewFile(uintptr(pair[1]), "client")
	if err != nil {
		conn.Close()
		theirs.Close()
		return nil, err
	}
	h := &handed{file: theirs, head: head, copied: make(chan struct{})}
	go h.relay(near, conn)
	return h, nil
}

// relay copies both ways until the container's side has ended, or a client without
// CloseWrite has: that cannot end its input and go on to read.
func (h *handed) relay(near, client net.Conn) {
	defer close(h.copied)
	defer client.Close()
	defer near.Close()
	go func() {
		_, _ = io.Copy(near, client)
		if _, half := client.(interface{ CloseWrite() error }); !half {
			near.Close()
		}
		if c, ok := near.(*net.UnixConn); ok {
			_ = c.CloseWrite()
		}
	}()
	_, _ = io.Copy(client, near)
}

// gone tells whether the client has closed its end altogether.
func (h *handed) gone() (gone bool) {
	rc, err := h.file.SyscallConn()
	if err != nil {
		return true
	}
	_ = rc.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone
}

// close drops our descriptor of the socket.
func (h *handed) close() { h.file.Close() }

// wait returns when nothing is left to copy, at once for a socket that was
// given away.
func (h *handed) wait() error {
	if h.copied != nil {
		<-h.copied
	}
	return nil
}

// DefaultDetachKeys are what a client means that names none: ctrl-p, ctrl-q.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// parseDetachKeys reads Docker's comma-separated keys: single characters, DEL,
// and ctrl-X with a small letter or one of @ [ \ ] ^ _.
func parseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		s = DefaultDetachKeys
	}
	var keys []byte
	for _, key := range strings.Split(s, ",") {
		switch {
		case len(key) == 1:
			keys = append(keys, key[0])
		case key == "DEL":
			keys = append(keys, 0x7f)
		case len(key) == 6 && key[:5] == "ctrl-" && isControl(key[5]):
			keys = append(keys, control(key[5]))
		default:
			return nil, fault.New(fault.Invalid, "Invalid detach keys (%s) provided", s)
		}
	}
	return keys, nil
}

func isControl(c byte) bool {
	return c >= 'a' && c <= 'z' || strings.IndexByte(`@[\]^_`, c) >= 0
}

func control(c byte) byte {
	if c >= 'a' && c <= 'z' {
		c -= 'a' - 'A'
	}
	return c & 0x1f
}

// Resize sets the size of the container's terminal, in characters.
func (s *Service) Resize(ctx context.Context, nameOrID string, height, width uint16) error {
	r, err := s.store.find(nameOrID)
	if err != nil {
		return err
	}
	keeper, _, err := s.lives.running(r)
	if err != nil {
		return err
	}
	if r.Config.Tty { // else there is no size, which Docker takes for no error
		if err := keeper.Resize(ctx, "", height, width); err != nil {
			return err
		}
	}
	s.publish(r, events.ActionResize, "height", strconv.Itoa(int(height)), "width", strconv.Itoa(int(width)))
	return nil
}

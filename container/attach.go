package container

import (
	"context"
	"errors"
	"net"
	"strconv"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/logbook"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/stream"
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
	keys, err := stream.DetachKeys(o.DetachKeys)
	if err != nil {
		return err
	}
	r, err := s.store.Find(nameOrID)
	if err != nil {
		return err
	}
	if r.State == record.Paused {
		return fault.New(fault.Conflict, "container %s is paused, unpause the container before attach", nameOrID)
	}
	if r.State == record.Restarting {
		return fault.New(fault.Conflict, "container %s is restarting, wait until the container is running", r.ID)
	}
	o.Logs = o.Logs && s.Logbook.Readable(&r)
	o.Stream = o.Stream && (o.Stdin || o.Stdout || o.Stderr) // nothing to wait for otherwise
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
	if c.client, err = stream.Hand(conn, head); err != nil {
		return err
	}
	c.options.Buffered = buffered
	given, err := c.connect(ctx, seat)
	if !given {
		err = errors.Join(err, c.client.Greet()) // where nothing has come behind it
		c.client.Close()                         // the other process has its own descriptor, or the session is over
	}
	if err != nil {
		return err
	}
	s.publish(r, events.ActionAttach)
	return c.client.Wait()
}

// caller is a client on its way to the supervising process.
type caller struct {
	containers *Service
	live       *live
	record     Record
	asked      AttachOptions
	client     *stream.Client
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
		if err := c.client.Greet(); err != nil {
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
	if _, err := c.containers.store.Find(c.record.ID); err != nil { // removed meanwhile
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
	if !c.asked.Logs && !c.client.Greeted() {
		err := keeper.AttachHeld(ctx, c.options, c.client.File, c.client.Welcome)
		if !errors.Is(err, fault.Invalid) {
			return errors.Join(err, c.client.Greet()) // it may have just ended
		}
		// A process of an older version wants the head to be there.
	}
	if err := c.client.Welcome(); err != nil {
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
	err := keeper.Attach(ctx, c.options, c.client.File)
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
	at, release, err := c.containers.Logbook.Replay(&c.record, logbook.Selection{Stdout: c.asked.Stdout, Stderr: c.asked.Stderr, Framed: c.options.Multiplexed}, from, c.client)
	if err == nil {
		c.options.LogsAt, c.options.LogsFrom = at, at.Offset
	}
	return release, err
}

// Resize sets the size of the container's terminal, in characters.
func (s *Service) Resize(ctx context.Context, nameOrID string, height, width uint16) error {
	r, err := s.store.Find(nameOrID)
	if err != nil {
		return err
	}
	keeper, _, err := s.lives.running(r)
	if err != nil {
		return err
	}
	if r.Config.Tty { // else there is no size, which Docker takes for no error
		if err := keeper.Resize(ctx, height, width); err != nil {
			return err
		}
	}
	s.publish(r, events.ActionResize, "height", strconv.Itoa(int(height)), "width", strconv.Itoa(int(width)))
	return nil
}

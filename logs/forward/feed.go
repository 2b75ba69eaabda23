package forward

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/logs/driver"
)

// The waits between attempts to reach a receiver.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 10 * time.Second
	dialTime  = 10 * time.Second
)

// saveEvery is how often a cursor that moves is stored, and settleTime what
// must pass before what an unsure receiver was sent counts as arrived.
const (
	saveEvery  = 500 * time.Millisecond
	settleTime = time.Second
)

// cursor is how far a log is delivered.
type cursor struct {
	At    logs.Position
	Parts [2]part // lines that have begun before At and not ended, by stream
}

// part is a line that comes in parts.
type part struct {
	ID   string `json:",omitempty"` // "" between lines
	Sent int    `json:",omitempty"` // parts
}

// feed is one log on its way to its receiver.
type feed struct {
	f     *Forwarder
	id    string
	again bool // guarded by f.mu

	mu    sync.Mutex
	s     Source
	until time.Time // when it is given up; zero: never
	at    cursor    // what is delivered
	saved cursor
}

// moved is called when the container is removed.
func (x *feed) moved(dir string, until time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.s.Dir, x.s.Running, x.until = dir, over, until
}

func (x *feed) source() (Source, time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.s, x.until
}

// run feeds until all is delivered, it is given up, or ctx ends.
func (x *feed) run(ctx context.Context) {
	s, _ := x.source()
	if x.delivered() == (cursor{}) {
		x.load(s.Dir)
	}
	defer x.save()
	receiver, err := driver.NewReceiver(s.Driver, s.Info)
	if err != nil {
		x.f.log.Error("the log of a container cannot be sent", "container", x.id, "driver", s.Driver, "err", err)
		return
	}
	away := false
	first := cmp.Or(receiver.Wait, firstWait)
	for wait := first; ; wait = max(first, min(2*wait, lastWait)) {
		before := x.delivered()
		err := x.session(ctx, receiver)
		x.save()
		if err == nil || ctx.Err() != nil {
			return
		}
		if x.delivered() != before {
			wait, away = first, false
		}
		if err == errRenew {
			continue
		}
		if !away {
			x.f.log.Warn("the receiver of a container's log cannot be reached: the log waits for it", "container", x.id, "driver", s.Driver, "err", err)
			away = true
		}
		if _, until := x.source(); !until.IsZero() && time.Now().After(until) {
			x.f.log.Error("the rest of a removed container's log was not delivered", "container", x.id, "driver", s.Driver)
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// load reads the cursor that an earlier daemon has stored.
func (x *feed) load(dir string) {
	var at cursor
	data, err := os.ReadFile(filepath.Join(dir, cursorName))
	if err != nil || json.Unmarshal(data, &at) != nil {
		at = cursor{} // rather all of it again than a part never
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at, x.saved = at, at
}

func (x *feed) delivered() cursor {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.at
}

// save stores the cursor if it has moved.
func (x *feed) save() {
	x.mu.Lock()
	at, dir, same := x.at, x.s.Dir, x.at == x.saved
	x.mu.Unlock()
	if same {
		return
	}
	data, err := json.Marshal(at)
	if err == nil {
		err = atomicfile.Write(filepath.Join(dir, cursorName), data, 0o600)
	}
	if err != nil { // as on a full disk: the next one may succeed
		x.f.log.Debug("the cursor of a log cannot be stored", "container", x.id, "err", err)
		return
	}
	x.mu.Lock()
	x.saved = at
	x.mu.Unlock()
}

// session is one connection to a receiver.
type session struct {
	x     *feed
	conn  *driver.Conn
	renew time.Time // when the connection is due to be made anew; zero: never
	batch []driver.Message
	lines []byte // of the batch
	parts [2]part

	mu    sync.Mutex
	marks []mark // of what was sent and has yet to settle
}

// mark is a place that was reached at a time.
type mark struct {
	at   cursor
	when time.Time
}

var (
	errBroken = errors.New("the receiver has closed the connection")
	errRenew  = errors.New("the connection is made anew")
)

// session connects and feeds from the cursor on. nil means that nothing is
// left.
func (x *feed) session(ctx context.Context, receiver *driver.Receiver) error {
	dialing, stop := context.WithTimeout(ctx, dialTime)
	conn, err := receiver.Dial(dialing)
	stop()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{x: x, conn: conn, parts: x.delivered().Parts}
	if receiver.Renew > 0 {
		s.renew = time.Now().Add(receiver.Renew)
	}
	var side sync.WaitGroup
	side.Go(func() { // a write that hangs ends with the connection
		select {
		case <-conn.Broken():
			cancel(errBroken)
		case <-ctx.Done():
		}
		conn.Close()
	})
	side.Go(func() { s.tick(ctx) })
	defer side.Wait()
	defer cancel(nil)

	src, _ := x.source()
	err = logs.Read(ctx, filepath.Join(src.Dir, LogName), logs.ReadOptions{
		Tail: -1, From: x.delivered().At, Follow: true, Running: src.Running, Block: s.flush, Unpack: x.f.unpack,
	}, s.add)
	if again := err == errRenew; err == nil || again {
		if err = s.settle(ctx); err == nil && again {
			return errRenew
		}
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// add puts a record into the batch.
func (s *session) add(e logs.Entry) error {
	m := driver.Message{Stream: logs.Stdout, Time: e.Time}
	p := &s.parts[0]
	if e.Stream == logs.Stderr.String() {
		m.Stream, p = logs.Stderr, &s.parts[1]
	}
	line, whole := bytes.CutSuffix(e.Line, []byte{'\n'})
	whole = whole || len(line) < logs.PartSize // the end of an output, which has no newline
	if !whole || p.ID != "" {
		m.Partial = p.next(whole)
	}
	start := len(s.lines)
	s.lines = append(s.lines, line...)
	m.Line = s.lines[start:len(s.lines):len(s.lines)]
	s.batch = append(s.batch, m)
	return nil
}

// next numbers a part of a line.
func (p *part) next(last bool) *driver.Partial {
	if p.ID == "" {
		p.ID = idgen.New()
	}
	p.Sent++
	n := &driver.Partial{ID: p.ID, Ordinal: p.Sent, Last: last}
	if last {
		*p = part{}
	}
	return n
}

// flush sends the batch, which ends at a place of the log.
func (s *session) flush(at logs.Position) error {
	if err := s.conn.Send(s.batch); err != nil {
		return err
	}
	s.batch, s.lines = s.batch[:0], s.lines[:0]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = append(s.marks, mark{cursor{at, s.parts}, time.Now()})
	s.advanceLocked()
	if !s.renew.IsZero() && time.Now().After(s.renew) {
		return errRenew
	}
	return nil
}

// advanceLocked moves the cursor to the last mark that counts as arrived.
func (s *session) advanceLocked() {
	n := 0
	switch {
	case s.conn.Sure():
		n = len(s.marks)
	case s.conn.Settled():
		for n < len(s.marks) && time.Since(s.marks[n].when) >= settleTime {
			n++
		}
	}
	if n == 0 {
		return
	}
	s.x.mu.Lock()
	s.x.at = s.marks[n-1].at
	s.x.mu.Unlock()
	s.marks = append(s.marks[:0], s.marks[n:]...)
}

// tick moves and stores the cursor while nothing is sent.
func (s *session) tick(ctx context.Context) {
	t := time.NewTicker(saveEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.mu.Lock()
			s.advanceLocked()
			s.mu.Unlock()
			s.x.save()
		case <-ctx.Done():
			return
		}
	}
}

// settle waits until all that was sent counts as arrived.
func (s *session) settle(ctx context.Context) error {
	t := time.NewTicker(settleTime / 10)
	defer t.Stop()
	for {
		s.mu.Lock()
		s.advanceLocked()
		left := len(s.marks)
		s.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

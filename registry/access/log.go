package access

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/tarehq/tare/fault"
)

// Log is the access log: a line for each request. Lines are gathered and
// written by a goroutine of its own, so no request waits for a disk or for
// whoever reads the other end of a pipe.
type Log struct {
	json bool
	log  *slog.Logger // of the registry itself
	file string       // "" if the output was given
	out  io.Writer
	own  *os.File // the output, if it is the log's own file

	mu     sync.Mutex
	buf    []byte
	lost   int // lines, since the last write
	closed bool
	wake   chan struct{} // there is a line
	full   chan struct{} // there are many
	done   chan struct{}
}

const (
	gatherTime = 100 * time.Millisecond // lines may be as old before they are written
	writeSoon  = 64 << 10               // bytes that are not waited with
	maxGather  = 1 << 20                // bytes that wait; what comes then is lost, and the log says so
	maxText    = 512                    // of a path, an agent or a message
)

// OpenLog opens a log: at the file, which is opened again when somebody has
// moved it away, or at out where file is "". The format is "json" or "text".
// What goes wrong with it is told to log.
func OpenLog(file string, out io.Writer, format string, log *slog.Logger) (*Log, error) {
	l := &Log{json: format == "json", log: log, file: file, out: out, wake: make(chan struct{}, 1), full: make(chan struct{}, 1), done: make(chan struct{})}
	if file != "" {
		if err := l.open(); err != nil {
			return nil, fault.New(fault.Invalid, "cannot open the access log: %w", err)
		}
	}
	go l.run()
	return l, nil
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	if l.own != nil {
		l.own.Close()
	}
	l.out, l.own = f, f
	return nil
}

// Observe is one of Config.Observers.
func (l *Log) Observe(r *Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buf) > maxGather || l.closed {
		l.lost++
		return
	}
	first := len(l.buf) == 0
	b := line{json: l.json, text: l.buf}
	b.begin(r.Time)
	b.string("method", r.Method)
	b.string("path", r.Path)
	b.int("status", int64(r.Status))
	b.int("bytes", r.Out)
	b.seconds("seconds", r.Took)
	b.string("remote", host(r.Remote))
	b.string("id", r.ID)
	if r.In > 0 {
		b.int("received", r.In)
	}
	if r.User != "" {
		b.string("user", r.User)
	}
	if r.Agent != "" {
		b.string("agent", r.Agent)
	}
	if r.Early {
		b.key("early")
		b.text = append(b.text, "true"...)
	}
	if r.Code != "" {
		b.string("code", r.Code)
	}
	if r.Message != "" {
		b.string("error", r.Message)
	}
	if l.buf = b.end(); first {
		signal(l.wake)
	}
	if len(l.buf) > writeSoon {
		signal(l.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes what was gathered until the log is closed.
func (l *Log) run() {
	defer close(l.done)
	var spare []byte
	for range l.wake {
		l.mu.Lock()
		closed := l.closed
		l.mu.Unlock()
		if !closed {
			select {
			case <-l.full:
			case <-time.After(gatherTime):
			}
		}
		l.mu.Lock()
		full, lost := l.buf, l.lost
		l.buf, l.lost = spare[:0], 0
		l.mu.Unlock()
		l.flush(full, lost)
		if spare = full; cap(spare) > 4*writeSoon {
			spare = nil // what a slow disk needed is not kept
		}
		if closed {
			return
		}
	}
}

// flush writes lines. Those that cannot be written are lost: there is no other
// place for them.
func (l *Log) flush(lines []byte, lost int) {
	if l.own != nil {
		l.reopen()
	}
	n, err := l.out.Write(lines)
	if err != nil {
		lost += bytes.Count(lines[n:], []byte("\n"))
	}
	if lost > 0 {
		l.log.Warn("lines of the access log were lost", slog.Int("count", lost), slog.Any("error", err))
	}
}

// reopen follows whoever rotates logs by renaming them.
func (l *Log) reopen() {
	here, err := l.own.Stat()
	if err != nil {
		return
	}
	there, err := os.Stat(l.file)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(here, there) {
		if err := l.open(); err != nil {
			l.log.Warn("the access log stays in the file that was moved", slog.Any("error", err))
		}
	}
}

// Close writes what is there.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	signal(l.wake)
	signal(l.full)
	<-l.done
	if l.own != nil {
		return l.own.Close()
	}
	return nil
}

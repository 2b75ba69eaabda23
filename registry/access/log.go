package access

import (
	"bytes"
	"context"
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
	handler slog.Handler
	log     *slog.Logger // of the registry itself
	file    string // "" if the output was given
	out     io.Writer
	own     *os.File // the output, if it is the log's own file

	mu     sync.Mutex
	buf    []byte
	lost   int // lines, since the last write
	closed bool
	wake   chan struct{}
	done   chan struct{}
}

const (
	gatherTime = 100 * time.Millisecond // lines may be as old before they are written
	maxGather  = 1 << 20                // bytes that wait; more is lost, and the log says so
	maxText    = 512                    // of a path, an agent or a message
)

// OpenLog opens a log: at the file, which is opened again when somebody has
// moved it away, or at out where file is "". The format is "json" or "text".
// What goes wrong with it is told to log.
func OpenLog(file string, out io.Writer, format string, log *slog.Logger) (*Log, error) {
	l := &Log{log: log, file: file, out: out, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if file != "" {
		if err := l.open(); err != nil {
			return nil, fault.New(fault.Invalid, "cannot open the access log: %w", err)
		}
	}
	if format == "json" {
		l.handler = slog.NewJSONHandler(gather{l}, nil)
	} else {
		l.handler = slog.NewTextHandler(gather{l}, nil)
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
	line := slog.NewRecord(r.Time, slog.LevelInfo, "request", 0)
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("method", short(r.Method)), slog.String("path", short(r.Path)), slog.Int("status", r.Status),
		slog.Int64("bytes", r.Out), slog.Float64("seconds", r.Took.Seconds()), slog.String("remote", host(r.Remote)),
		slog.String("id", r.ID))
	if r.In > 0 {
		attrs = append(attrs, slog.Int64("received", r.In))
	}
	if r.User != "" {
		attrs = append(attrs, slog.String("user", short(r.User)))
	}
	if r.Agent != "" {
		attrs = append(attrs, slog.String("agent", short(r.Agent)))
	}
	if r.Early {
		attrs = append(attrs, slog.Bool("early", true))
	}
	if r.Code != "" {
		attrs = append(attrs, slog.String("code", r.Code), slog.String("error", short(r.Message)))
	}
	line.AddAttrs(attrs...)
	_ = l.handler.Handle(context.Background(), line) // gather never fails
}

func short(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}

// gather takes whole lines.
type gather struct{ l *Log }

func (g gather) Write(line []byte) (int, error) {
	l := g.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buf)+len(line) > maxGather || l.closed {
		l.lost++
		return len(line), nil
	}
	first := len(l.buf) == 0
	l.buf = append(l.buf, line...)
	if first {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return len(line), nil
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
			time.Sleep(gatherTime)
		}
		l.mu.Lock()
		full, lost := l.buf, l.lost
		l.buf, l.lost = spare[:0], 0
		l.mu.Unlock()
		l.flush(full, lost)
		if spare = full; cap(spare) > maxGather/8 {
			spare = nil // what a burst needed is not kept
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
	select {
	case l.wake <- struct{}{}:
	default:
	}
	<-l.done
	if l.own != nil {
		return l.own.Close()
	}
	return nil
}

package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tarehq/tare/container/logbook"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/logs"
)

// Logs are the containers' logs; logbook.Book is it.
type Logs interface {
	Open(ctx context.Context, nameOrID string, o logbook.Options) (logbook.Stream, error)
	Clear(ctx context.Context, nameOrID string) error
	Sizes() []logbook.Size
}

type logHandlers struct{ book Logs }

func (h *logHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: "/containers/{id}/logs", handle: h.logs},
		{method: "DELETE", pattern: "/containers/{id}/logs", handle: h.clear}, // Docker has none
	}
}

func (h *logHandlers) clear(w http.ResponseWriter, r *request) error {
	if err := h.book.Clear(r.Context(), r.params["id"]); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *logHandlers) logs(w http.ResponseWriter, r *request) error {
	o, err := logsOptions(r)
	if err != nil {
		return err
	}
	stream, err := h.book.Open(r.Context(), r.params["id"], o)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", r.version.StreamType(stream.TTY))
	out := newStreamWriter(w)
	if err := out.begin(); err != nil {
		return err
	}
	err = stream.Copy(r.Context(), func(source byte, line []byte) error {
		return out.write(source, line, !stream.TTY)
	})
	if err != nil && r.Context().Err() == nil {
		// Too late for a status; stream 3 is for words of the daemon.
		out.write(3, fmt.Appendf(nil, "Error grabbing logs: %v\n", err), !stream.TTY)
	}
	// A log that was cut short must not look whole.
	return errors.Join(out.end(), r.Context().Err())
}

func logsOptions(r *request) (o logbook.Options, err error) {
	if err = r.form(); err != nil {
		return o, err
	}
	o = logbook.Options{
		Stdout: r.flag("stdout"), Stderr: r.flag("stderr"), Follow: r.flag("follow"), Timestamps: r.flag("timestamps"),
		Details: r.flag("details"), Tail: -1,
	}
	if !o.Stdout && !o.Stderr {
		return o, fault.New(fault.Invalid, "Bad parameters: you must choose at least one stream")
	}
	if o.Since, err = r.moment("since"); err != nil {
		return o, err
	}
	if !r.version.Before(35) && r.Form.Get("until") != "0" { // which means never
		if o.Until, err = r.moment("until"); err != nil {
			return o, err
		}
	}
	// "all", and anything else that is no number, means all.
	if n, err := strconv.Atoi(r.Form.Get("tail")); err == nil && n >= 0 {
		o.Tail = n
	}
	return o, nil
}

// flushDelay bounds how long a line may wait for others to share its packet.
const flushDelay = 2 * time.Millisecond

// streamWriter collects small writes and lets none of them wait long.
type streamWriter struct {
	control *http.ResponseController
	w       http.ResponseWriter

	mu      sync.Mutex
	buf     *bufio.Writer
	timer   *time.Timer
	pending bool
	ended   bool
	err     error
}

func newStreamWriter(w http.ResponseWriter) *streamWriter {
	return &streamWriter{control: http.NewResponseController(w), w: w, buf: bufio.NewWriterSize(w, 32<<10)}
}

// begin sends the head, so that the client knows at once that it was heard.
func (s *streamWriter) begin() error {
	s.w.WriteHeader(http.StatusOK)
	return s.control.Flush()
}

// write adds one line, in a frame if frames are asked for.
func (s *streamWriter) write(source byte, line []byte, framed bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if framed {
		head := logs.Header(logs.Stream(source), len(line))
		if _, err := s.buf.Write(head[:]); err != nil {
			return err
		}
	}
	if _, err := s.buf.Write(line); err != nil {
		return err
	}
	if !s.pending {
		s.pending = true
		if s.timer == nil {
			s.timer = time.AfterFunc(flushDelay, s.flush)
		} else {
			s.timer.Reset(flushDelay)
		}
	}
	return nil
}

func (s *streamWriter) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.flushLocked()
	}
}

func (s *streamWriter) flushLocked() {
	s.pending = false
	if s.err == nil {
		s.err = s.buf.Flush()
	}
	if s.err == nil {
		s.err = s.control.Flush()
	}
}

// end sends what is left. The timer touches the writer no more afterwards.
func (s *streamWriter) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.flushLocked()
	s.ended = true
	return s.err
}

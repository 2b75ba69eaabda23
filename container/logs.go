package container

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/logs"
)

// LogsOptions as in GET /containers/{id}/logs.
type LogsOptions struct {
	Stdout, Stderr bool
	Follow         bool
	Timestamps     bool // each line begins with its time
	Details        bool // then with what log options attach to it: nothing yet, and a space
	Since, Until   time.Time
	Tail           int // -1 for all
}

// LogStream is a log that can be copied to a client.
type LogStream struct {
	TTY  bool // one raw stream; otherwise multiplexed
	Copy func(ctx context.Context, emit func(stream byte, line []byte) error) error
}

// The numbers of the streams in Docker's multiplexed framing.
const (
	stdout byte = 1
	stderr byte = 2
)

// Logs opens the container's log.
func (s *Service) Logs(ctx context.Context, nameOrID string, o LogsOptions) (LogStream, error) {
	r, err := s.store.find(nameOrID)
	if err != nil {
		return LogStream{}, err
	}
	if !o.Stdout && !o.Stderr {
		return LogStream{}, fault.New(fault.Invalid, "you must choose at least one stream")
	}
	if r.HostConfig.LogConfig.Type == "none" {
		return LogStream{}, fault.New(fault.NotImplemented, "configured logging driver does not support reading")
	}
	return LogStream{TTY: r.Config.Tty, Copy: func(ctx context.Context, emit func(byte, []byte) error) error {
		return s.copyLog(ctx, r, o, emit)
	}}, nil
}

func (s *Service) copyLog(ctx context.Context, r Record, o LogsOptions, emit func(byte, []byte) error) error {
	opts := logs.ReadOptions{Since: o.Since, Until: o.Until, Tail: o.Tail, Follow: o.Follow,
		Running: func() <-chan struct{} { return s.over(r.ID) }}
	var line []byte
	err := logs.Read(ctx, s.logPath(r.ID), opts, func(e logs.Entry) error {
		stream := stdout
		if e.Stream == "stderr" {
			stream = stderr
		}
		if stream == stdout && !o.Stdout || stream == stderr && !o.Stderr {
			return nil
		}
		line = line[:0]
		if o.Timestamps {
			line = e.Time.UTC().AppendFormat(line, "2006-01-02T15:04:05.000000000Z07:00 ")
		}
		if o.Details {
			line = append(line, ' ')
		}
		return emit(stream, append(line, e.Line...))
	})
	if errors.Is(err, os.ErrNotExist) { // it has not run yet, or never with a log
		return nil
	}
	return err
}

// over is closed when the container's present run is over, already so when
// there is none.
func (s *Service) over(id string) <-chan struct{} {
	l := s.live(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.run == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	return l.run.ended
}

// replay writes the log of a container that does not run to a client, up to the
// offset that it returns.
func (s *Service) replay(r Record, o AttachOptions, w io.Writer) (end int64, err error) {
	if !o.Logs || r.HostConfig.LogConfig.Type == "none" {
		return 0, nil
	}
	f, err := os.Open(s.logPath(r.ID))
	if errors.Is(err, os.ErrNotExist) { // it has not run yet
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), logs.Decode(io.NewSectionReader(f, 0, st.Size()), func(e logs.Entry) error {
		stream, wanted := stdout, o.Stdout
		if e.Stream == logs.Stderr.String() {
			stream, wanted = stderr, o.Stderr
		}
		if !wanted {
			return nil
		}
		line := e.Line
		if !r.Config.Tty && !o.Raw {
			header := logs.Header(logs.Stream(stream), len(line))
			line = append(header[:], line...)
		}
		_, err := w.Write(line)
		return err
	})
}

package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/seqpacket"
)

// line is a connection to a supervising process: requests, their answers, and events,
// which have no number.
type line struct {
	conn *seqpacket.Conn
	gone chan struct{} // closed at its end

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan Message
}

func newLine(conn *seqpacket.Conn) *line {
	return &line{conn: conn, gone: make(chan struct{}), waiting: map[uint64]chan Message{}}
}

// read distributes what comes, until the end of the connection.
func (l *line) read(event func(Message)) {
	for {
		msg, files, err := l.conn.Recv()
		for _, f := range files {
			f.Close()
		}
		if err != nil && !errors.Is(err, seqpacket.ErrFilesLost) { // no answer has files
			break
		}
		var m Message
		if json.Unmarshal(msg, &m) != nil {
			if err != nil { // a long answer is lost: nobody may wait for it
				break
			}
			continue
		}
		if m.ID == 0 {
			event(m)
			continue
		}
		l.mu.Lock()
		answer := l.waiting[m.ID]
		delete(l.waiting, m.ID)
		l.mu.Unlock()
		if answer != nil {
			answer <- m
		}
	}
	l.conn.Close()
	close(l.gone)
}

// errGone is what a call meets when the process, or our connection, is gone.
func errGone() error {
	return fault.New(fault.Unavailable, "the process that supervises the container is gone")
}

// call sends a request and waits for its answer, which is decoded into result
// if that is not nil. When ctx ends the request is still served.
func (l *line) call(ctx context.Context, method string, body, result any, files ...*os.File) error {
	answer := make(chan Message, 1)
	m := l.message(method, body, answer)
	if err := l.conn.Send(encode(m), files...); err != nil {
		l.forget(m.ID)
		select {
		case <-l.gone:
			return errGone()
		default:
		}
		return fault.New(fault.Unavailable, "cannot reach the process that supervises the container: %w", err)
	}
	select {
	case m = <-answer:
	case <-ctx.Done():
		l.forget(m.ID)
		return ctx.Err()
	case <-l.gone:
		select {
		case m = <-answer: // came just before the end
		default:
			return errGone()
		}
	}
	if m.Error != nil {
		return m.Error.Err()
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(m.Body, result)
}

// tell sends a request whose answer nobody waits for.
func (l *line) tell(method string, body any) {
	_ = l.conn.Send(encode(l.message(method, body, nil)))
}

// message numbers a request. answer, if not nil, gets what comes back.
func (l *line) message(method string, body any, answer chan Message) Message {
	m := Message{Method: method}
	if body != nil {
		m.Body = encode(body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	m.ID = l.last
	if answer != nil {
		l.waiting[m.ID] = answer
	}
	return m
}

func (l *line) forget(id uint64) {
	l.mu.Lock()
	delete(l.waiting, id)
	l.mu.Unlock()
}

package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/tarehq/tare/fault"
)

// pace is how slow a client may be. What moves may take hours; what stalls, or
// moves so slowly that it is there to hold a connection, is cut.
type pace struct {
	stall time.Duration // without a byte
	rate  float64       // bytes a second, on average over the stall
}

// allowance is the time that a stream has left. Waiting uses it up, bytes that
// move give it back.
type allowance struct {
	pace
	left time.Duration
}

func (p pace) begin() allowance { return allowance{p, p.stall} }

// worth is the time that n bytes may take.
func (a *allowance) worth(n int64) time.Duration {
	if a.rate <= 0 {
		return a.stall
	}
	return time.Duration(float64(n) / a.rate * float64(time.Second))
}

// moved accounts for n bytes that took some time.
func (a *allowance) moved(n int64, took time.Duration) {
	a.left = min(a.stall, a.left+a.worth(n)-took)
}

// listener gives connections that are cut when their reader is too slow.
type listener struct {
	*net.TCPListener
	pace pace
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return &conn{c, l.pace.begin()}, nil
}

// conn moves the deadline of writing along. It stays a TCP connection to
// net/http, which has the kernel send files to it.
type conn struct {
	*net.TCPConn
	out allowance
}

// sendChunk is how much of a file is sent under one deadline. Smaller ones cost
// a third more of the processor for a blob of a megabyte.
const sendChunk = 1 << 20

// write runs what writes at most n bytes.
func (c *conn) write(n int64, do func() (int64, error)) (int64, error) {
	start := time.Now()
	if err := c.SetWriteDeadline(start.Add(c.out.left + c.out.worth(n))); err != nil {
		return 0, err
	}
	wrote, err := do()
	c.out.moved(wrote, time.Since(start))
	return wrote, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.write(int64(len(b)), func() (int64, error) {
		n, err := c.TCPConn.Write(b)
		return int64(n), err
	})
	return int(n), err
}

// ReadFrom is io.ReaderFrom's. The kernel sends from a file that is seen through
// one LimitedReader at most, so that of the caller is taken apart.
func (c *conn) ReadFrom(src io.Reader) (total int64, err error) {
	limit, limited := src.(*io.LimitedReader)
	if !limited {
		limit = &io.LimitedReader{R: src, N: 1<<63 - 1}
	}
	for limit.N > 0 {
		part := &io.LimitedReader{R: limit.R, N: min(limit.N, sendChunk)}
		want := part.N
		n, err := c.write(want, func() (int64, error) { return c.TCPConn.ReadFrom(part) })
		total += n
		limit.N -= want - part.N
		if err != nil || part.N > 0 {
			return total, err
		}
	}
	return total, nil
}

// guard has next read bodies, and write to streams of HTTP/2, under deadlines
// that move along.
func (p pace) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			control := http.NewResponseController(w)
			// Also what net/http reads of a body that nobody wanted ends in time.
			control.SetReadDeadline(time.Now().Add(p.stall))
			r.Body = &body{r.Body, control, p.begin()}
		}
		if r.ProtoMajor > 1 {
			w = &stream{w, http.NewResponseController(w), p.begin()}
		}
		next.ServeHTTP(w, r)
	})
}

// body is a request's.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	in      allowance
}

// Read reads under a deadline. That does not outlast the body: net/http takes it
// away when it reads on to learn that the client has gone.
func (b *body) Read(p []byte) (int, error) {
	start := time.Now()
	if err := b.control.SetReadDeadline(start.Add(b.in.left)); err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	b.in.moved(int64(n), time.Since(start))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fault.New(fault.Invalid, "the client sends too slowly: go on from what has come with a faster connection: %w", err)
	}
	return n, err
}

// stream is the answer on a stream of HTTP/2. Its peer can stop it alone, while
// the connection moves.
type stream struct {
	http.ResponseWriter
	control *http.ResponseController
	out     allowance
}

func (s *stream) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *stream) Write(b []byte) (int, error) {
	start := time.Now()
	if err := s.control.SetWriteDeadline(start.Add(s.out.left + s.out.worth(int64(len(b))))); err != nil {
		return 0, err
	}
	n, err := s.ResponseWriter.Write(b)
	s.out.moved(int64(n), time.Since(start))
	return n, err
}

package client

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// request is one HTTP/1.1 request. At most one of body and stream is set.
type request struct {
	method      string
	path        string // escaped, without the version
	query       url.Values
	body        []byte // JSON
	stream      io.Reader
	upgrade     bool
	protocol    string // to upgrade to; "": tcp
	unversioned bool
	header      [][2]string
}

// response is the head of an answer and a reader of its body. The body must be
// closed; read to its end before that, its connection is used again.
type response struct {
	status int
	header map[string]string // by lower-case name; the last one of a name
	body   io.ReadCloser
	conn   *conn // set for an upgraded connection only
}

// conn is one connection with what was read ahead of the parser.
type conn struct {
	net.Conn
	br   *bufio.Reader
	used bool // has carried a request before
}

func newConn(nc net.Conn) *conn {
	return &conn{Conn: nc, br: bufio.NewReaderSize(nc, 8192)}
}

// over tells whether the peer has closed an idle connection: nothing else may
// be there to read.
func (k *conn) over() bool {
	nc := k.Conn
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	var n int
	if err := rc.Control(func(fd uintptr) {
		n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}, 0)
	}); err != nil {
		return true
	}
	return n > 0
}

// CloseWrite tells the peer that nothing more will be sent.
func (k *conn) CloseWrite() error {
	if cw, ok := k.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// do sends the request and returns the answer, or the error that the answer
// stands for. A request without a stream is repeated when the daemon asks for
// a lower API version.
func (c *Client) do(ctx context.Context, r request) (*response, error) {
	if r.stream != nil {
		if err := c.negotiate(ctx); err != nil {
			return nil, err
		}
	}
	for {
		sent := c.Version()
		resp, err := c.roundTrip(ctx, r)
		if err != nil {
			return nil, err
		}
		if resp.status < 400 && resp.status != 304 {
			return resp, nil
		}
		message := errorMessage(resp)
		if resp.status == 400 && r.stream == nil && !r.unversioned && c.lower(message, sent) {
			continue
		}
		return nil, statusFault(resp.status, message)
	}
}

// roundTrip sends the request on an idle or a new connection and reads the
// head of the answer, whatever its status.
func (c *Client) roundTrip(ctx context.Context, r request) (*response, error) {
	for {
		k, err := c.acquire(ctx)
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { k.SetDeadline(time.Unix(1, 0)) })
		resp, err := c.exchange(k, r, stop)
		if err == nil {
			return resp, nil
		}
		stop()
		k.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if source, ok := err.(*sourceError); ok {
			return nil, source.err
		}
		if ended, ok := k.Conn.(*sshConn); ok && !k.used {
			return nil, ended.reason(err)
		}
		// The daemon may have closed a connection while it was idle. Whether it
		// has acted on a request before nobody knows: only what changes nothing
		// is sent again.
		if k.used && (r.method == "GET" || r.method == "HEAD") && (errors.Is(err, io.EOF) || isClosedByPeer(err)) {
			continue
		}
		return nil, fault.New(fault.Unavailable, "the connection to %s broke: %w", c.endpoint.Host, reason(err))
	}
}

// reason is a network error without the addresses of the connection: those of a
// socket are not what the user called it.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// exchange writes the request and reads the head of the answer.
func (c *Client) exchange(k *conn, r request, stop func() bool) (*response, error) {
	streamed := make(chan error, 1)
	if _, err := k.Write(c.head(r)); err != nil {
		return nil, err
	}
	if r.stream != nil {
		// The daemon may refuse before it has read all: then its answer counts.
		go func() {
			err := writeChunked(k.Conn, r.stream)
			streamed <- err
			if err != nil && !isClosedByPeer(err) {
				k.Close() // the daemon would wait for the rest for ever
			}
		}()
	}
	resp, err := readHead(k.br)
	if err != nil {
		select {
		case werr := <-streamed:
			if werr != nil && !isClosedByPeer(werr) {
				return nil, werr
			}
		default:
		}
		return nil, err
	}
	if r.upgrade && (resp.status == 101 || resp.status == 200) {
		stop()
		k.SetDeadline(time.Time{})
		resp.conn, resp.body = k, io.NopCloser(strings.NewReader(""))
		return resp, nil
	}
	b := &body{client: c, conn: k, stop: stop, reusable: r.stream == nil && !strings.EqualFold(resp.header["connection"], "close")}
	switch {
	case r.method == "HEAD" || resp.status == 204 || resp.status == 304:
		b.left = 0
	case strings.EqualFold(resp.header["transfer-encoding"], "chunked"):
		b.chunked = true
	case resp.header["content-length"] != "":
		if b.left, err = strconv.ParseInt(resp.header["content-length"], 10, 64); err != nil || b.left < 0 {
			return nil, errors.New("malformed Content-Length in the answer")
		}
	default:
		b.left, b.reusable, b.toEOF = 1<<62, false, true
	}
	resp.body = b
	return resp, nil
}

// head renders the request line, the headers and a body held in memory.
func (c *Client) head(r request) []byte {
	b := make([]byte, 0, 512+len(r.body))
	b = append(b, r.method...)
	b = append(b, ' ')
	if !r.unversioned {
		b = append(b, "/v"...)
		b = append(b, c.Version()...)
	}
	b = append(b, r.path...)
	if len(r.query) > 0 {
		b = append(b, '?')
		b = append(b, r.query.Encode()...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, c.host...)
	b = append(b, "\r\n"...)
	b = append(b, c.header...)
	for _, h := range r.header {
		b = append(b, h[0]...)
		b = append(b, ": "...)
		b = append(b, h[1]...)
		b = append(b, "\r\n"...)
	}
	if r.upgrade {
		b = append(b, "Connection: Upgrade\r\nUpgrade: "+cmp.Or(r.protocol, "tcp")+"\r\n"...)
	}
	switch {
	case r.stream != nil:
		b = append(b, "Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n"...)
	case r.body != nil:
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.body)), 10)
		b = append(b, "\r\n"...)
	case r.method == "POST":
		b = append(b, "Content-Length: 0\r\n"...)
	}
	b = append(b, "\r\n"...)
	return append(b, r.body...)
}

// maxHead bounds the head of an answer, in bytes.
const maxHead = 256 << 10

// readHead reads the status line and the headers, skipping interim answers.
func readHead(br *bufio.Reader) (*response, error) {
	budget := maxHead
	for {
		line, err := readLine(br, &budget)
		if err != nil {
			return nil, err
		}
		proto, rest, _ := strings.Cut(line, " ")
		code, _, _ := strings.Cut(rest, " ")
		status, err := strconv.Atoi(code)
		if !strings.HasPrefix(proto, "HTTP/1.") || err != nil || status < 100 {
			return nil, errors.New("the answer is not HTTP: " + strconv.Quote(line))
		}
		resp := &response{status: status, header: make(map[string]string, 8)}
		for {
			line, err := readLine(br, &budget)
			if err != nil {
				return nil, noEOF(err)
			}
			if line == "" {
				break
			}
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return nil, errors.New("malformed header in the answer: " + strconv.Quote(line))
			}
			resp.header[strings.ToLower(name)] = strings.TrimSpace(value)
		}
		if status >= 200 || status == 101 {
			return resp, nil
		}
	}
}

// readLine reads one line of at most *budget bytes, without its end.
func readLine(br *bufio.Reader, budget *int) (string, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		if *budget -= len(part); *budget < 0 {
			return "", errors.New("the head of the answer is too long")
		}
		line = append(line, part...)
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			if len(line) > 0 {
				err = noEOF(err)
			}
			return "", err
		}
		return strings.TrimRight(string(line), "\r\n"), nil
	}
}

// chunks sends what is written to it as chunks of a body, a chunk for each writing.
type chunks struct {
	conn net.Conn
	err  error // of the connection
}

func (c *chunks) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b := net.Buffers{append(strconv.AppendInt(nil, int64(len(p)), 16), "\r\n"...), p, []byte("\r\n")}
	if _, c.err = b.WriteTo(c.conn); c.err != nil {
		return 0, c.err
	}
	return len(p), nil
}

// produced is a stream that is made as it is sent, without a buffer in between.
type produced func(w io.Writer) error

// Read is of no stream that is sent: see writeChunked.
func (produced) Read([]byte) (int, error) { return 0, io.ErrNoProgress }

// writeChunked sends the reader in chunks.
func writeChunked(w net.Conn, r io.Reader) error {
	if produce, ok := r.(produced); ok {
		out := &chunks{conn: w}
		if err := produce(out); out.err != nil {
			return out.err
		} else if err != nil {
			return &sourceError{err}
		}
		_, err := io.WriteString(w, "0\r\n\r\n")
		return err
	}
	const room = 10 // of the chunk's size line
	buf := make([]byte, room+64<<10+2)
	for {
		n, err := r.Read(buf[room : len(buf)-2])
		if n > 0 {
			size := strconv.AppendInt(make([]byte, 0, room), int64(n), 16)
			size = append(size, "\r\n"...)
			start := room - len(size)
			copy(buf[start:], size)
			copy(buf[room+n:], "\r\n")
			if _, werr := w.Write(buf[start : room+n+2]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			_, err := io.WriteString(w, "0\r\n\r\n")
			return err
		}
		if err != nil {
			return &sourceError{err}
		}
	}
}

// sourceError is a failure to read what was to be sent.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// body reads the body of an answer and gives its connection back at the end.
type body struct {
	client   *Client
	conn     *conn
	stop     func() bool
	left     int64 // of the body or of the chunk
	chunked  bool
	begun    bool // a chunk was read before
	toEOF    bool
	reusable bool
	done     bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	if b.left == 0 {
		more, err := b.next()
		if err != nil {
			return 0, err
		}
		if !more {
			b.finish()
			return 0, io.EOF
		}
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.conn.br.Read(p)
	b.left -= int64(n)
	if err == io.EOF && !b.toEOF || errors.Is(err, syscall.ECONNRESET) {
		err = ErrBroken
	}
	return n, err
}

// next reads the next chunk's size; it is false at the end of the body.
func (b *body) next() (bool, error) {
	if !b.chunked {
		return false, nil
	}
	budget := 4096
	if b.begun {
		if _, err := readLine(b.conn.br, &budget); err != nil {
			return false, noEOF(err)
		}
	}
	b.begun = true
	line, err := readLine(b.conn.br, &budget)
	if err != nil {
		return false, noEOF(err)
	}
	line, _, _ = strings.Cut(line, ";")
	size, err := strconv.ParseInt(strings.TrimSpace(line), 16, 64)
	if err != nil || size < 0 {
		return false, errors.New("malformed chunk in the answer")
	}
	if b.left = size; size > 0 {
		return true, nil
	}
	for line = "x"; line != ""; {
		if line, err = readLine(b.conn.br, &budget); err != nil {
			return false, noEOF(err)
		}
	}
	return false, nil
}

func (b *body) finish() {
	b.done = true
	// When the cancellation has begun, the connection's deadline is spoilt.
	if b.stop() && b.reusable {
		b.client.release(b.conn)
		return
	}
	b.conn.Close()
}

// Close ends the reading. What is left of a short body is read first, so that
// the connection can be used again.
func (b *body) Close() error {
	if b.done {
		return nil
	}
	if b.reusable && b.conn.br.Buffered() > 0 || !b.chunked && b.left == 0 {
		if n, err := io.CopyN(io.Discard, b, 4096); n < 4096 && err == io.EOF {
			return nil
		}
	}
	b.done = true
	b.stop()
	return b.conn.Close()
}

func noEOF(err error) error {
	if err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
		return ErrBroken
	}
	return err
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func itoa(n int) string { return strconv.Itoa(n) }

package client

import (
	"context"
	"encoding/binary"
	"io"
	"net/url"
	"strings"

	"github.com/tarehq/tare/fault"
)

// Stream is a connection taken over from HTTP: what is written goes to the
// process's standard input, what is read is its output. It is closed by its
// user.
type Stream struct {
	conn *conn
	// Multiplexed is true when the daemon has said that the output comes in
	// frames (API 1.42 and later say so).
	Multiplexed bool
}

func (s *Stream) Read(p []byte) (int, error)  { return s.conn.br.Read(p) }
func (s *Stream) Write(p []byte) (int, error) { return s.conn.Write(p) }

// CloseWrite ends the process's standard input; its output can still be read.
func (s *Stream) CloseWrite() error { return s.conn.CloseWrite() }

// Close ends the session.
func (s *Stream) Close() error { return s.conn.Close() }

// Upgrade asks for a connection that speaks another protocol, at a path that has no
// version.
func (c *Client) Upgrade(ctx context.Context, path, protocol string, header [][2]string) (*Stream, error) {
	return c.take(ctx, request{method: "POST", path: path, upgrade: true, protocol: protocol, unversioned: true, header: header})
}

// hijack sends a request that asks for the connection itself.
func (c *Client) hijack(ctx context.Context, path string, query url.Values, body any) (*Stream, error) {
	r := request{method: "POST", path: path, query: query, upgrade: true}
	if body != nil {
		var err error
		if r.body, err = encode(body); err != nil {
			return nil, err
		}
	}
	return c.take(ctx, r)
}

// take sends such a request.
func (c *Client) take(ctx context.Context, r request) (*Stream, error) {
	resp, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	if resp.conn == nil {
		resp.body.Close()
		return nil, fault.New(fault.Internal, "the daemon answered an upgrade with status %d", resp.status)
	}
	return &Stream{conn: resp.conn, Multiplexed: strings.HasPrefix(resp.header["content-type"], "application/vnd.docker.multiplexed-stream")}, nil
}

// maxFrame bounds what one frame may announce, in bytes.
const maxFrame = 64 << 20

// Demultiplex copies Docker's framed output until its end: an 8-byte header
// with the stream (0 and 1 standard output, 2 standard error, 3 an error of
// the daemon) and the big-endian length, then the bytes.
func Demultiplex(stdout, stderr io.Writer, r io.Reader) error {
	var head [8]byte
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		size := int64(binary.BigEndian.Uint32(head[4:]))
		w := stdout
		switch head[0] {
		case 0, 1:
		case 2:
			w = stderr
		case 3:
			text, _ := io.ReadAll(io.LimitReader(r, min(size, 1<<20)))
			return fault.New(fault.Internal, "error from daemon in stream: %s", text)
		default:
			return fault.New(fault.Internal, "unrecognized stream %d in the output", head[0])
		}
		if size > maxFrame {
			return fault.New(fault.Internal, "a frame of %d bytes in the output is too long", size)
		}
		if n, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(r, size), buf); err != nil {
			return err
		} else if n < size {
			return io.ErrUnexpectedEOF
		}
	}
}

// onlyWriter hides ReadFrom, which would bypass the buffer.
type onlyWriter struct{ io.Writer }

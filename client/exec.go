package client

import (
	"context"
	"net/url"
)

// ExecRequest is the body of POST /containers/{id}/exec.
type ExecRequest struct {
	User         string
	Privileged   bool
	Tty          bool
	ConsoleSize  *[2]uint `json:",omitempty"` // height, width
	AttachStdin  bool
	AttachStderr bool
	AttachStdout bool
	DetachKeys   string
	Env          []string
	WorkingDir   string
	Cmd          []string
}

// ExecStartRequest is the body of POST /exec/{id}/start.
type ExecStartRequest struct {
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint `json:",omitempty"` // height, width
}

// ExecState tells how an executed process is.
type ExecState struct {
	ID       string
	Running  bool
	ExitCode *int
	Pid      int
}

// IDResponse names what was made.
type IDResponse struct{ Id string }

// ExecCreate prepares a process in a running container and returns its ID.
func (c *Client) ExecCreate(ctx context.Context, container string, r *ExecRequest) (string, error) {
	var out IDResponse
	err := c.call(ctx, "POST", "/containers/"+segment(container)+"/exec", nil, r, &out)
	return out.Id, err
}

// ExecStart starts the process without its streams.
func (c *Client) ExecStart(ctx context.Context, id string, r ExecStartRequest) error {
	return c.call(ctx, "POST", "/exec/"+segment(id)+"/start", nil, r, nil)
}

// ExecAttach starts the process and takes a connection to its streams.
func (c *Client) ExecAttach(ctx context.Context, id string, r ExecStartRequest) (*Stream, error) {
	return c.hijack(ctx, "/exec/"+segment(id)+"/start", nil, r)
}

// ExecRun is ExecCreate and ExecAttach, in one request where the daemon knows how;
// then the exit code comes with the output, if that has frames.
func (c *Client) ExecRun(ctx context.Context, container string, r *ExecRequest) (id string, s *Stream, err error) {
	body, err := encode(r)
	if err != nil {
		return "", nil, err
	}
	path := "/containers/" + segment(container) + "/exec"
	resp, err := c.do(ctx, request{method: "POST", path: path, query: url.Values{"start": {"1"}}, body: body, upgrade: true})
	if err != nil {
		return "", nil, err
	}
	if resp.conn != nil {
		return resp.header["exec-id"], &Stream{conn: resp.conn, exits: true}, nil
	}
	var out IDResponse
	if err := c.decode(ctx, resp, path, &out); err != nil {
		return "", nil, err
	}
	s, err = c.ExecAttach(ctx, out.Id, ExecStartRequest{Tty: r.Tty, ConsoleSize: r.ConsoleSize})
	return out.Id, s, err
}

// ExecInspect tells how the process is.
func (c *Client) ExecInspect(ctx context.Context, id string) (ExecState, error) {
	return fetch[ExecState](ctx, c, "GET", "/exec/"+segment(id)+"/json", nil, nil)
}

// ExecResize sets the size of the process's terminal.
func (c *Client) ExecResize(ctx context.Context, id string, height, width uint) error {
	return c.call(ctx, "POST", "/exec/"+segment(id)+"/resize", size(height, width), nil, nil)
}

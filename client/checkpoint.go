package client

import (
	"context"
	"io"
	"net/url"

	"github.com/tarehq/tare/fault"
)

// CheckpointCreateRequest is the body of POST /containers/{id}/checkpoints.
type CheckpointCreateRequest struct {
	CheckpointID  string
	CheckpointDir string
	Exit          bool // the container ends; else it goes on
	PreDump       bool `json:",omitempty"` // the memory is written before, while it goes on; not Docker's
}

// Checkpoint is one of the answer to GET /containers/{id}/checkpoints.
type Checkpoint struct{ Name string }

// CheckpointCreate writes the processes of a container to files.
func (c *Client) CheckpointCreate(ctx context.Context, container string, r CheckpointCreateRequest) error {
	return c.call(ctx, "POST", "/containers/"+segment(container)+"/checkpoints", nil, r, nil)
}

// CheckpointList lists what was made of a container; dir "" is what lies with it.
func (c *Client) CheckpointList(ctx context.Context, container, dir string) ([]Checkpoint, error) {
	query := url.Values{}
	set(query, "dir", dir)
	return fetchList[Checkpoint](ctx, c, "/containers/"+segment(container)+"/checkpoints", query)
}

// CheckpointInspectRaw returns what the daemon tells of one, as it is.
func (c *Client) CheckpointInspectRaw(ctx context.Context, container, dir, name string) ([]byte, error) {
	query := url.Values{}
	set(query, "dir", dir)
	return fetch[[]byte](ctx, c, "GET", "/containers/"+segment(container)+"/checkpoints/"+segment(name)+"/json", query, nil)
}

// CheckpointExport opens a tar of one, with its container's changes to its image.
func (c *Client) CheckpointExport(ctx context.Context, container, dir, name string) (io.ReadCloser, error) {
	query := url.Values{}
	set(query, "dir", dir)
	return c.open(ctx, request{method: "GET", path: "/containers/" + segment(container) + "/checkpoints/" + segment(name) + "/archive", query: query})
}

// CheckpointImport brings such a tar to a container that was created of the same
// image.
func (c *Client) CheckpointImport(ctx context.Context, container, name string, in io.Reader) error {
	body, err := c.open(ctx, request{method: "PUT", path: "/containers/" + segment(container) + "/checkpoints/" + segment(name) + "/archive", stream: in})
	if err != nil {
		return err
	}
	return body.Close()
}

// CheckpointRemove deletes one.
func (c *Client) CheckpointRemove(ctx context.Context, container, dir, name string) error {
	query := url.Values{}
	set(query, "dir", dir)
	return c.call(ctx, "DELETE", "/containers/"+segment(container)+"/checkpoints/"+segment(name), query, nil, nil)
}

// ContainerStartFrom starts a container from a checkpoint, whose memory, where lazy
// is said, comes when it is touched.
func (c *Client) ContainerStartFrom(ctx context.Context, name, checkpoint, dir string, lazy bool) error {
	query := url.Values{}
	set(query, "checkpoint", checkpoint)
	set(query, "checkpoint-dir", dir)
	if lazy {
		query.Set("lazy-pages", "1")
	}
	err := c.call(ctx, "POST", "/containers/"+segment(name)+"/start", query, nil, nil)
	if fault.KindOf(err) == fault.NotModified { // said without words
		return fault.New(fault.Conflict, "container %s runs already: stop it before it is started from a checkpoint", name)
	}
	return err
}

package client

import (
	"context"
	"net/url"
)

// CheckpointCreateRequest is the body of POST /containers/{id}/checkpoints.
type CheckpointCreateRequest struct {
	CheckpointID  string
	CheckpointDir string
	Exit          bool // the container ends; else it goes on
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

// CheckpointRemove deletes one.
func (c *Client) CheckpointRemove(ctx context.Context, container, dir, name string) error {
	query := url.Values{}
	set(query, "dir", dir)
	return c.call(ctx, "DELETE", "/containers/"+segment(container)+"/checkpoints/"+segment(name), query, nil, nil)
}

// ContainerStartFrom starts a container from a checkpoint.
func (c *Client) ContainerStartFrom(ctx context.Context, name, checkpoint, dir string) error {
	query := url.Values{}
	set(query, "checkpoint", checkpoint)
	set(query, "checkpoint-dir", dir)
	return c.call(ctx, "POST", "/containers/"+segment(name)+"/start", query, nil, nil)
}

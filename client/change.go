package client

import (
	"context"
	"io"
	"net/url"
)

// CommitOptions describe an image made from a container.
type CommitOptions struct {
	Repo, Tag       string
	Author, Comment string
	Changes         []string // Dockerfile instructions
	NoPause         bool     // the container goes on meanwhile
	Squash          bool     // one layer in all; only tared knows it
	Epoch           string   // SOURCE_DATE_EPOCH; only tared knows it
}

// ContainerCommit makes an image from a container and returns its ID.
func (c *Client) ContainerCommit(ctx context.Context, name string, o CommitOptions) (string, error) {
	query := url.Values{"container": {name}}
	set(query, "repo", o.Repo)
	set(query, "tag", o.Tag)
	set(query, "author", o.Author)
	set(query, "comment", o.Comment)
	for _, change := range o.Changes {
		query.Add("changes", change)
	}
	if o.NoPause {
		query.Set("pause", "0")
	}
	flag(query, "squash", o.Squash)
	set(query, "source-date-epoch", o.Epoch)
	id, err := fetch[IDResponse](ctx, c, "POST", "/commit", query, nil)
	return id.Id, err
}

// FilesystemChange is one path that differs from the container's image.
type FilesystemChange struct {
	Kind int // 0 changed, 1 added, 2 deleted
	Path string
}

// ContainerChanges lists what a container has changed, by path.
func (c *Client) ContainerChanges(ctx context.Context, name string) ([]FilesystemChange, error) {
	return fetch[[]FilesystemChange](ctx, c, "GET", "/containers/"+segment(name)+"/changes", nil, nil)
}

// ContainerExport opens a tar of a container's root file system.
func (c *Client) ContainerExport(ctx context.Context, name string) (io.ReadCloser, error) {
	return c.open(ctx, request{method: "GET", path: "/containers/" + segment(name) + "/export"})
}

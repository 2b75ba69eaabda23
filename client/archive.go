package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"os"

	"github.com/tarehq/tare/fault"
)

// PathStat tells what a path of a container leads to.
type PathStat struct {
	Name       string      `json:"name"`
	Size       int64       `json:"size"` // bytes
	Mode       os.FileMode `json:"mode"`
	LinkTarget string      `json:"linkTarget"` // of a symbolic link, from the container's root
}

func archiveOf(container string) string { return "/containers/" + segment(container) + "/archive" }

// ContainerStatPath asks what a path of a container leads to; a link is told of
// itself.
func (c *Client) ContainerStatPath(ctx context.Context, container, path string) (PathStat, error) {
	resp, err := c.do(ctx, request{method: "HEAD", path: archiveOf(container), query: url.Values{"path": {path}}})
	if err != nil {
		return PathStat{}, err
	}
	defer resp.body.Close()
	return pathStat(resp)
}

// CopyFromContainer opens a tar of what a path of a container leads to.
func (c *Client) CopyFromContainer(ctx context.Context, container, path string) (io.ReadCloser, PathStat, error) {
	resp, err := c.do(ctx, request{method: "GET", path: archiveOf(container), query: url.Values{"path": {path}}})
	if err != nil {
		return nil, PathStat{}, err
	}
	stat, err := pathStat(resp)
	if err != nil {
		resp.body.Close()
		return nil, stat, err
	}
	return &contextBody{ctx, resp.body}, stat, nil
}

func pathStat(resp *response) (stat PathStat, err error) {
	text, err := base64.StdEncoding.DecodeString(resp.header["x-docker-container-path-stat"])
	if err == nil {
		err = json.Unmarshal(text, &stat)
	}
	if err != nil {
		return stat, fault.New(fault.Internal, "the daemon does not tell what the path leads to: %w", err)
	}
	return stat, nil
}

// CopyToContainer unpacks a tar in a directory of a container. No directory takes
// the place of something else there, nor the other way round. With toUser all belongs
// to the container's user. tar writes the archive, in large pieces.
func (c *Client) CopyToContainer(ctx context.Context, container, path string, toUser bool, tar func(io.Writer) error) error {
	query := url.Values{"path": {path}, "noOverwriteDirNonDir": {"true"}}
	flag(query, "copyUIDGID", toUser)
	resp, err := c.do(ctx, request{method: "PUT", path: archiveOf(container), query: query, stream: produced(tar)})
	if err != nil {
		return err
	}
	return resp.body.Close()
}

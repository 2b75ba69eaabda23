package supervise

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/seqpacket"
)

// mount hands over the mounts that no path leads to.
func (l *line) mount(ctx context.Context, c *Config) error {
	for skip := 0; skip < len(c.Mounts); skip += seqpacket.MaxFiles {
		req := MountRequest{Dir: c.Dir, Skip: skip}
		var files []*os.File
		for _, m := range c.Mounts[skip:min(skip+seqpacket.MaxFiles, len(c.Mounts))] {
			req.Subpaths, files = append(req.Subpaths, m.Subpath), append(files, m.Tree)
		}
		if err := l.call(ctx, MethodMount, req, nil, files...); err != nil {
			return err
		}
	}
	return nil
}

// create has the container made, with its clients attached, and learns what came of
// it. What does not fit into one message of files goes before it.
func (l *line) create(ctx context.Context, req CreateRequest, clients []*os.File) (Status, error) {
	req.NetNS, req.Shm, req.Users = req.Config.NetNS != nil, req.Config.Shm != nil, req.Config.UserNS != nil
	if err := l.mount(ctx, &req.Config); err != nil {
		return Status{}, err
	}
	held := req.Held
	if len(held) > 0 && 3+len(clients)+len(held) > seqpacket.MaxFiles {
		n := min(len(held), 3+len(clients)+len(held)-seqpacket.MaxFiles)
		if err := l.Hold(ctx, held[:n]); err != nil {
			return Status{}, err
		}
		held = held[n:]
	}
	var files []*os.File
	if req.NetNS {
		files = append(files, req.Config.NetNS)
	}
	if req.Shm {
		files = append(files, req.Config.Shm)
	}
	if req.Users {
		files = append(files, req.Config.UserNS)
	}
	files = append(files, clients...)
	var s Started
	if err := l.call(ctx, MethodCreate, req, &s, append(files, held...)...); err != nil {
		if errors.Is(err, fault.Unavailable) {
			select {
			case <-l.gone:
				return Status{}, fault.New(fault.Internal, "the supervising process died while it made the container")
			default:
			}
		}
		return Status{}, err
	}
	return s.Status, nil
}

// Hold has the process keep open more files, which the caller may close, until
// the container is released.
func (l *line) Hold(ctx context.Context, files []*os.File) error {
	for batch := range slices.Chunk(files, seqpacket.MaxFiles) {
		if err := l.call(ctx, MethodHold, nil, nil, batch...); err != nil {
			return err
		}
	}
	return nil
}

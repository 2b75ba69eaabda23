package network

import (
	"context"
	"io"
	"log/slog"
	"os"
)

// naming tells Names of the sandboxes, if there is somebody to be told.
type naming struct{ names Names }

// prepare readies a namespace that waits for a container on the lan.
func (n naming) prepare(l *lan, netns *os.File) (io.Closer, error) {
	if n.names == nil || predefined(l.Name) {
		return nil, nil
	}
	return n.names.Prepare(netns)
}

// set tells of a sandbox as it is from now on. The files are to be held open as long
// as the container runs.
func (n naming) set(ctx context.Context, b Sandbox, netns *os.File, prepared io.Closer) (held []*os.File, err error) {
	if n.names == nil {
		return nil, nil
	}
	return n.names.Set(ctx, b, netns, prepared)
}

// back tells of a sandbox as it is after all.
func (n naming) back(ctx context.Context, b Sandbox, netns *os.File) {
	if !b.HasNames() {
		n.drop(b.ID)
		return
	}
	// What fails is told again with the next change.
	held, _ := n.set(context.WithoutCancel(ctx), b, netns, nil)
	closeAll(held)
}

// all tells of those that live on.
func (n naming) all(ctx context.Context, sandboxes []Sandbox) {
	for _, b := range sandboxes {
		held, err := n.set(ctx, b, nil, nil)
		closeAll(held)
		if err != nil {
			slog.Error("the names of a container that runs on cannot be told", "container", b.ContainerID, "err", err)
		}
	}
}

// drop tells that a sandbox is no more.
func (n naming) drop(id string) {
	if n.names != nil {
		n.names.Drop(id)
	}
}

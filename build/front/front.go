// Package front is what clients of builds talk to: the classic POST /build,
// BuildKit's services over gRPC, and the session in which a client lends its
// files. It has BuildKit's front end turn Dockerfiles into graphs, and package
// build solve them.
package front

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/supervise"
)

// Config says what the front stands on.
type Config struct {
	Store        build.Store
	Steps        string // directory of the bundles of RUN steps
	Root         string // directory of the cache
	CgroupParent string
	Launcher     *supervise.Launcher // of RUN steps
	Idle         time.Duration       // how long to wait for somebody before Serve returns
}

// Serve answers those who come to l, HTTP/1.1 and HTTP/2 in clear text, until
// ctx ends or nobody has been there for c.Idle.
func Serve(ctx context.Context, l net.Listener, c Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := &idleness{after: c.Idle, end: cancel, there: map[net.Conn]bool{}}
	idle.begin()
	h, err := newHandler(ctx, c)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h, ConnState: idle.note, BaseContext: func(net.Listener) context.Context { return ctx }, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// idleness ends the serving when nobody has been there for a while.
type idleness struct {
	after time.Duration
	end   func()

	mu    sync.Mutex
	there map[net.Conn]bool
	timer *time.Timer
}

func (i *idleness) begin() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.timer = time.AfterFunc(i.after, i.expire)
}

func (i *idleness) expire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.there) == 0 {
		i.end()
	}
}

// note follows a connection. One that was hijacked counts until left is called.
func (i *idleness) note(c net.Conn, state http.ConnState) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch state {
	case http.StateNew:
		i.there[c] = true
	case http.StateClosed:
		delete(i.there, c)
		i.timer.Reset(i.after)
	}
}

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
	"time"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/keep"
	"github.com/tarehq/tare/container/device"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/supervise"
)

// Config says what the front stands on.
type Config struct {
	Store        build.Store
	Steps        string // directory of the bundles of RUN steps
	Root         string // directory of the cache
	CgroupParent string
	Users        *userns.Map         // what the IDs of RUN steps are outside; nil for the host's
	HostGateway  string              // address that host-gateway stands for in --add-host, "" for none
	Launcher     *supervise.Launcher // of RUN steps
	Rules        []keep.Rule         // the ceilings of the cache
	Grants       []string            // what clients may grant to their builds
	Devices      device.CDI          // those that steps may have
	Failed       func(error)         // told of what fails beside builds
	Idle         time.Duration       // how long to wait for somebody before Serve returns
}

// Serve answers those who come to l, HTTP/1.1 and HTTP/2 in clear text, until
// ctx ends or nobody has been there for c.Idle.
func Serve(ctx context.Context, l net.Listener, c Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h, err := newHandler(ctx, c)
	if err != nil {
		return err
	}
	defer h.close()
	server := &http.Server{Handler: h.routes(), BaseContext: func(net.Listener) context.Context { return ctx }, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(guests{l, newIdleness(c.Idle, cancel)}); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

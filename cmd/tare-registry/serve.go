package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/config"
)

const (
	headerTime = 10 * time.Second // for the head of a request, and TLS before it
	idleTime   = 2 * time.Minute  // between two requests
	maxHeader  = 64 << 10         // tokens with many repositories are long
)

// bind opens the sockets. All of them or none are open then.
func bind(ctx context.Context, addrs []string, p pace) (list []net.Listener, err error) {
	for _, addr := range addrs {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			for _, l := range list {
				err = errors.Join(err, l.Close())
			}
			return nil, unbound(addr, err)
		}
		list = append(list, listener{l.(*net.TCPListener), p})
	}
	return list, nil
}

// unbound says why an address cannot be had.
func unbound(addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fault.New(fault.Conflict, "cannot listen on %s: another process does: end it, or choose another port with --addr", addr)
	case errors.Is(err, syscall.EACCES):
		return fault.New(fault.Forbidden, "cannot listen on %s: ports below 1024 are for root: choose another with --addr", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fault.New(fault.Invalid, "cannot listen on %s: this machine does not have the address: choose another with --addr", addr)
	}
	if a := (*net.AddrError)(nil); errors.As(err, &a) {
		return fault.New(fault.Invalid, "cannot listen on %s: want HOST:PORT", addr)
	}
	return fault.New(fault.Invalid, "cannot listen on %s: %w", addr, err)
}

// newServer makes the server of HTTP/1.1 and HTTP/2, the latter by TLS alone
// unless h2c allows it otherwise.
func newServer(h config.HTTP, handler http.Handler, t *tls.Config, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           handler,
		TLSConfig:         t,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(t != nil)
	s.Protocols.SetUnencryptedHTTP2(h.H2C)
	return s
}

// answer serves until ctx ends or a listener fails. Requests under way then
// have some time to end; the uploads that do not are there to go on with.
func answer(ctx context.Context, s *http.Server, listeners []net.Listener, patience time.Duration, log *slog.Logger) error {
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() {
			if s.TLSConfig != nil {
				failed <- s.ServeTLS(l, "", "")
			} else {
				failed <- s.Serve(l)
			}
		}()
	}
	var err error
	left := len(listeners)
	select {
	case <-ctx.Done():
		log.Info("stopping: requests under way have their time to end", "patience", patience)
	case err = <-failed:
		left--
	}
	limit, release := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer release()
	if s.Shutdown(limit) != nil {
		log.Warn("ended requests that took longer")
		err = errors.Join(err, s.Close())
	}
	for range left {
		if e := <-failed; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

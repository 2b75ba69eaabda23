package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/auth"
	"github.com/tarehq/tare/registry/config"
	"github.com/tarehq/tare/registry/retention"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/dir"
)

// serve is the command. What was opened is closed in the opposite order, also
// when the start fails half-way.
func serve(ctx context.Context, _, logTo io.Writer, o *options) (err error) {
	c, err := o.config()
	if err != nil {
		return err
	}
	log := newLog(logTo, c.Log)
	p := pace{time.Duration(c.HTTP.Stall), float64(c.HTTP.MinRate)}
	t, gate, err := doors(c, log)
	if err != nil {
		return err
	}
	listeners, err := bind(ctx, c.HTTP.Listen, p)
	if err != nil {
		return err
	}
	s, err := openStorage(c.Storage)
	if err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	rules := rulesOf(c)
	work, end := maintain(ctx, s, rules, c.Collect, log)
	defer end()
	handler := p.guard(routes(c, s, gate, rules, log))
	server := newServer(c.HTTP, handler, t, log)
	log.Info("tare-registry is ready", "version", version, "addresses", addresses(listeners, t != nil), "storage", describe(c.Storage), "pid", os.Getpid())
	debug.FreeOSMemory()
	return answer(work, server, listeners, time.Duration(c.HTTP.Shutdown), log)
}

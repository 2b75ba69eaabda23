// Command tared is Tare's daemon: it reads its options, builds the services
// and serves the Engine API until it is told to stop. Containers go on without
// it; the next tared of the same directories takes them over.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/sdnotify"
	"github.com/tarehq/tare/internal/slim"
)

// Set by the linker: -X main.version=… and so on.
var (
	version   = "0.1.0-dev"
	gitCommit = ""
	buildTime = ""
)

func main() {
	err := run(os.Args[1:])
	switch {
	case err == nil:
	case errors.Is(err, pflag.ErrHelp):
	default:
		fmt.Fprintf(os.Stderr, "tared: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	o, err := readOptions(args)
	if err != nil {
		return err
	}
	switch {
	case o.version:
		fmt.Printf("Tare version %s, build %s\n", version, commit())
		return nil
	case o.validate:
		if who := o.UsernsRemap; who != "" && who != "default" { // its user is made when it is needed
			if _, _, err := lookUpRemap(who); err != nil {
				return err
			}
		}
		fmt.Fprintln(os.Stderr, "configuration OK")
		return nil
	case os.Geteuid() != 0:
		return fault.New(fault.Forbidden, "the daemon needs to be started with root privileges")
	}
	level, err := parseLevel(o.LogLevel)
	if err != nil {
		return err
	}
	r := &reloader{args: args, level: &slog.LevelVar{}, now: *o}
	r.level.Set(level)
	r.log = newLog(o.LogFormat, r.level)
	if err := o.adjustProcess(r.log); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	outliveLog()
	return serve(ctx, r)
}

// serve runs the daemon until ctx ends. What was opened is closed in the
// opposite order, also when the start fails half-way.
func serve(ctx context.Context, r *reloader) (err error) {
	hangup := make(chan os.Signal, 1) // before anything: it must not end the daemon
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	o, log := &r.now, r.log
	held, err := openRoots(o)
	if err != nil {
		return err
	}
	defer closing(&err, held.Close)

	// The sockets come first: a client of a daemon that restarts waits instead
	// of being refused, and an address that cannot be had costs nothing else.
	listeners, err := listen(ctx, o)
	if err != nil {
		return err
	}
	w, err := wire(ctx, o, held.id, log)
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	defer closing(&err, w.steps.run)
	o.warn(log)

	if err := sdnotify.Send("READY=1"); err != nil {
		log.Warn("cannot tell systemd that the daemon is ready", "error", err)
	}
	log.Info("tared is ready", "version", version, "hosts", o.Hosts, "data-root", o.DataRoot, "exec-root", o.ExecRoot)
	defer slim.Later()()
	r.wired = w
	quit := make(chan struct{})
	var reloading sync.WaitGroup
	reloading.Go(func() { r.follow(hangup, quit) })
	err = answer(ctx, w.handler, listeners, log)
	close(quit)
	reloading.Wait()
	return errors.Join(err, stopContainers(r.options(), w, log))
}

// stopContainers ends the containers with the daemon if they are not to outlive
// it.
func stopContainers(o options, w *wired, log *slog.Logger) error {
	if o.LiveRestore {
		log.Info("containers go on")
		return nil
	}
	log.Info("stopping the containers", "shutdown-timeout", o.ShutdownTimeout)
	return container.StopAll(context.Background(), w.containers, time.Duration(o.ShutdownTimeout)*time.Second)
}

func closeAll(listeners []net.Listener) error {
	var err error
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// closing adds the error of a step of the shutdown to that of the run.
func closing(err *error, step func() error) { *err = errors.Join(*err, step()) }

const (
	// drainTime is how long requests that are under way may go on before
	// their context ends, which also ends streams that would never stop.
	drainTime = 300 * time.Millisecond
	// cutTime is how long they have from then on.
	cutTime = 5 * time.Second
)

// answer serves HTTP on the listeners until ctx ends or one of them fails.
func answer(ctx context.Context, handler http.Handler, listeners []net.Listener, log *slog.Logger) error {
	// Requests do not end with ctx: the answer of a start that is under way
	// is still wanted.
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s := &http.Server{
		Handler:           handler,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: 5 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- s.Serve(l) }()
	}
	var err error
	left := len(listeners)
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case err = <-failed:
		left--
	}
	if e := sdnotify.Send("STOPPING=1"); e != nil {
		log.Warn("cannot tell systemd that the daemon stops", "error", e)
	}
	drain := time.AfterFunc(drainTime, cancel)
	defer drain.Stop()
	limit, release := context.WithTimeout(context.WithoutCancel(ctx), drainTime+cutTime)
	defer release()
	if s.Shutdown(limit) != nil {
		err = errors.Join(err, s.Close())
	}
	for range left {
		if e := <-failed; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// outliveLog lets the daemon go on when nobody reads its log any more: a write
// to standard error whose reader is gone is an error then, and not the end. An
// ignored signal would stay so in every container, a caught one does not.
func outliveLog() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

func newLog(format string, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

func parseLevel(name string) (slog.Level, error) {
	switch name {
	case "trace", "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "fatal", "panic":
		return slog.LevelError + 4, nil
	}
	return 0, fault.New(fault.Invalid, "invalid logging level: %s", name)
}

// commit is the source's revision: the linker's, else what go build recorded.
func commit() string {
	if gitCommit != "" {
		return gitCommit
	}
	if revision := stamped("vcs.revision"); revision != "" {
		return revision[:min(12, len(revision))]
	}
	return "unknown"
}

// built is when: the time of the commit, unless the linker says otherwise.
func built() string {
	if buildTime != "" {
		return buildTime
	}
	return stamped("vcs.time")
}

// stamped is a setting that the Go command left in the program.
func stamped(key string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/config"
	"github.com/tarehq/tare/registry/retention"
	"github.com/tarehq/tare/registry/storage"
)

// A directory has one process that works there. What else is to be done to it,
// garbage-collect and retention, is asked of that process, by a socket that
// only its user can write to. The answer is what the command prints.
const controlSock = "control.sock"

const (
	collectPath   = "/garbage-collect"
	retentionPath = "/retention"
)

// deed is what a command does to a storage. It prints what it has done.
type deed func(ctx context.Context, out io.Writer, query url.Values) error

// control answers the commands for the directory until the function that it
// returns is called. Where the path is too long for a socket nobody can ask.
func control(root string, deeds map[string]deed, log *slog.Logger) (end func()) {
	path := filepath.Join(root, controlSock)
	_ = os.Remove(path) // of a process that is dead, as this one has the directory
	own := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failure error
		err := c.Control(func(fd uintptr) { failure = syscall.Fchmod(int(fd), 0o600) }) // what bind gives to the file
		return errors.Join(err, failure)
	}}
	l, err := own.Listen(context.Background(), "unix", path)
	if err != nil {
		log.Debug("commands cannot ask this registry", "error", err)
		return func() {}
	}
	mux := http.NewServeMux()
	for path, do := range deeds {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			out := bufio.NewWriter(w)
			w.Header().Set("Trailer", "Failed")
			if err := do(r.Context(), out, r.URL.Query()); err != nil {
				w.Header().Set("Failed", strings.ReplaceAll(err.Error(), "\n", " "))
			}
			_ = out.Flush()
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &http.Server{Handler: mux, ReadHeaderTimeout: headerTime, BaseContext: func(net.Listener) context.Context { return ctx }}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	return func() {
		cancel()
		limit, release := context.WithTimeout(context.Background(), drain)
		defer release()
		_ = s.Shutdown(limit)
		<-done
	}
}

// deeds are those of a storage that is open. care says what it goes by.
func deeds(kept, s storage.Storage, by func() keeping) map[string]deed {
	return map[string]deed{
		collectPath: func(ctx context.Context, out io.Writer, query url.Values) error {
			grace := time.Duration(by().collect.Grace)
			if text := query.Get("grace"); text != "" {
				var err error
				if grace, err = time.ParseDuration(text); err != nil {
					return err
				}
			}
			return collectNow(ctx, out, s, grace)
		},
		retentionPath: func(ctx context.Context, out io.Writer, query url.Values) error {
			k := by()
			return retainNow(ctx, out, kept, k.rules, query.Get("dry-run") == "", time.Duration(k.collect.Grace))
		},
	}
}

func collectNow(ctx context.Context, out io.Writer, s storage.Storage, grace time.Duration) error {
	freed, err := s.Collect(ctx, grace)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "removed %d blobs and %d uploads: %s\n", freed.Blobs, freed.Uploads, units.HumanSize(float64(freed.Bytes)))
	return err
}

func retainNow(ctx context.Context, out io.Writer, s storage.Storage, rules retention.Rules, apply bool, grace time.Duration) error {
	n := 0
	err := rules.Run(ctx, s, apply, grace, func(d retention.Deletion) {
		n++
		fmt.Fprintln(out, d)
	})
	if err != nil {
		return err
	}
	verb := "removed"
	if !apply {
		verb = "would remove"
	}
	_, err = fmt.Fprintf(out, "%s %d tags and manifests\n", verb, n)
	return err
}

// askRunning has the registry that runs on the directory do it. The error is
// busy, which says that one does, where it cannot be asked.
func askRunning(ctx context.Context, c *config.Config, out io.Writer, path string, query url.Values, busy error) error {
	if c.Storage.S3 != nil || !errors.Is(busy, fault.Conflict) {
		return busy
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(c.Storage.Root, controlSock))
	}}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://registry"+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return fault.New(fault.Conflict, "%w; a tare-registry that runs there cannot be asked (%w): have it collect by SIGUSR1, or end it first", busy, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fault.New(fault.Conflict, "the registry that runs on %s is of another version, and answers %s: end it first", c.Storage.Root, answer.Status)
	}
	if _, err := io.Copy(out, answer.Body); err != nil {
		return fault.New(fault.Unavailable, "the registry that runs on %s has ended: %w", c.Storage.Root, err)
	}
	if text := answer.Trailer.Get("Failed"); text != "" {
		return fault.New(fault.Internal, "the registry that runs on %s: %s", c.Storage.Root, text)
	}
	return nil
}

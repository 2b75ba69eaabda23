// Package stream joins this program's standard streams, terminal and signals
// with a process in a container.
package stream

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tarehq/tare/client"
)

// Attached is a session with a process in a container.
type Attached struct {
	Stream   *client.Stream
	In       io.Reader // nil: no standard input
	Out, Err io.Writer // nil: not wanted
	// TTY is set when the process has a terminal: its output is not framed.
	TTY bool
	// DetachKeys end the session without ending the process. The daemon acts
	// on them; they are watched for here to know why the session has ended.
	DetachKeys []byte
}

// detachPatience is how long the daemon may take to act on the detach keys.
const detachPatience = 2 * time.Second

// Run copies until the process's output ends, and closes the stream. detached
// is true when the user has typed the detach keys.
func (a *Attached) Run(ctx context.Context) (detached bool, err error) {
	defer a.Stream.Close()
	output, input := make(chan error, 1), make(chan struct{})
	watch := &watcher{keys: a.DetachKeys, seen: make(chan struct{})}
	if a.In == nil {
		close(input)
	} else {
		in := a.In
		if a.TTY && len(a.DetachKeys) > 0 {
			watch.r, in = a.In, watch
		}
		// A read from a terminal cannot be interrupted: this goroutine ends
		// with the program when the process ends first.
		go func() {
			defer close(input)
			io.Copy(onlyWriter{a.Stream}, in)
			a.Stream.CloseWrite()
		}()
	}
	if a.Out == nil && a.Err == nil {
		select {
		case <-input:
		case <-watch.seen:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
		return false, nil
	}
	go func() { output <- a.copyOutput() }()
	select {
	case err = <-output:
	case <-watch.seen:
		// The daemon acts on the keys and ends the output.
		select {
		case <-output:
		case <-time.After(detachPatience):
		case <-ctx.Done():
		}
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if watch.typed.Load() {
		return true, nil
	}
	return false, err
}

func (a *Attached) copyOutput() error {
	out, errOut := a.Out, a.Err
	if out == nil {
		out = io.Discard
	}
	if errOut == nil {
		errOut = io.Discard
	}
	if a.TTY {
		_, err := io.Copy(out, a.Stream)
		return err
	}
	return client.Demultiplex(out, errOut, a.Stream)
}

// onlyWriter hides ReadFrom: a splice would wait for a whole pipe.
type onlyWriter struct{ io.Writer }

// watcher looks for the detach keys in what it passes on.
type watcher struct {
	r     io.Reader
	keys  []byte
	held  int           // how many of the keys have been typed
	typed atomic.Bool   // the keys have been typed: the daemon ends the session
	seen  chan struct{} // closed when the keys have been typed once
	once  sync.Once
}

func (w *watcher) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	for _, b := range p[:n] {
		if b == w.keys[w.held] {
			w.held++
		} else if w.held = 0; b == w.keys[0] {
			w.held = 1
		}
		if w.held == len(w.keys) {
			w.held = 0
			w.typed.Store(true)
			w.once.Do(func() { close(w.seen) })
		}
	}
	return n, err
}

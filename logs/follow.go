package logs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// follow drains the file each time it changes.
func (r *reader) follow(ctx context.Context) error {
	w, err := newWatch(filepath.Dir(r.path))
	if err != nil {
		return err
	}
	defer w.close()
	var running <-chan struct{}
	if r.o.Running != nil {
		running = r.o.Running()
	}
	var past <-chan time.Time
	if !r.o.Until.IsZero() {
		t := time.NewTimer(time.Until(r.o.Until))
		defer t.Stop()
		past = t.C
	}
	for last := false; ; {
		if err := r.drain(ctx); err != nil || last {
			return err
		}
		select {
		case <-running:
			last = true // what was written before that is in the file
		case <-past:
			last = true
		case <-w.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watch tells of changes to the files of a directory, by inotify(7). It
// watches the directory because the file may be yet to come.
type watch struct {
	f       *os.File
	changed chan struct{} // holds one token while there is something new
	done    chan struct{}
}

func newWatch(dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot follow the log: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot follow the log in %s: %w", dir, err)
	}
	w := &watch{f, make(chan struct{}, 1), make(chan struct{})}
	go w.run()
	return w, nil
}

func (w *watch) run() {
	defer close(w.done)
	var events [4096]byte
	for {
		if _, err := w.f.Read(events[:]); err != nil {
			return
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (w *watch) close() {
	w.f.Close()
	<-w.done
}

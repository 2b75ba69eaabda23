package logs

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
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

// watch tells of changes to the files of a directory. It watches the directory
// because the file may be yet to come.
type watch struct {
	in      *instance
	wd      int32
	changed chan struct{} // holds one token while there is something new
}

// instance is one of inotify(7). Of these a user has few, 128 by default, but
// many watches: all that follow share one, which is there while somebody does.
type instance struct {
	fd   int
	f    *os.File
	dirs map[int32]map[*watch]struct{} // by watch descriptor; guarded by shared
	done chan struct{}
}

var shared struct {
	sync.Mutex
	in *instance
}

func newWatch(dir string) (*watch, error) {
	shared.Lock()
	defer shared.Unlock()
	in := shared.in
	if in == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, fmt.Errorf("cannot follow the log: %w", err)
		}
		in = &instance{fd, os.NewFile(uintptr(fd), "inotify"), map[int32]map[*watch]struct{}{}, make(chan struct{})}
	}
	wd, err := unix.InotifyAddWatch(in.fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO)
	if err != nil {
		if shared.in == nil {
			in.f.Close()
		}
		return nil, fmt.Errorf("cannot follow the log in %s: %w", dir, err)
	}
	if shared.in == nil {
		shared.in = in
		go in.run()
	}
	w := &watch{in, int32(wd), make(chan struct{}, 1)}
	if in.dirs[w.wd] == nil {
		in.dirs[w.wd] = map[*watch]struct{}{}
	}
	in.dirs[w.wd][w] = struct{}{}
	return w, nil
}

// run tells the watches what there is, until the file is closed.
func (in *instance) run() {
	defer close(in.done)
	var events [4096]byte
	for {
		n, err := in.f.Read(events[:])
		if err != nil {
			return
		}
		in.tell(events[:n])
	}
}

func (in *instance) tell(events []byte) {
	shared.Lock()
	defer shared.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		for w := range in.dirs[wd] {
			w.tell()
		}
		if wd < 0 { // the queue was full, and what is missing may be anybody's
			for _, all := range in.dirs {
				for w := range all {
					w.tell()
				}
			}
		}
		name := int(binary.NativeEndian.Uint32(events[12:]))
		events = events[min(len(events), unix.SizeofInotifyEvent+name):]
	}
}

func (w *watch) tell() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *watch) close() {
	if in := w.leave(); in != nil {
		in.f.Close()
		<-in.done
	}
}

// leave takes the watch out, and returns the instance if nobody needs it now.
func (w *watch) leave() *instance {
	shared.Lock()
	defer shared.Unlock()
	all := w.in.dirs[w.wd]
	if delete(all, w); len(all) > 0 {
		return nil
	}
	delete(w.in.dirs, w.wd)
	if len(w.in.dirs) > 0 {
		_, _ = unix.InotifyRmWatch(w.in.fd, uint32(w.wd)) // gone already with its directory
		return nil
	}
	shared.in = nil
	return w.in
}

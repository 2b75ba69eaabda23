// Package forward feeds the receivers of remote log drivers from the local
// logs, in the daemon. Nothing of it is between a container and its log: a
// receiver that is away, or slow, is waited for here, and what comes meanwhile
// stays in the log, within the log's bounds.
//
// Each log that has a receiver has one goroutine, from the start of its
// container until all is delivered, and a cursor: the place up to which all has
// arrived. It is stored about once a second, so a daemon that is killed sends
// the last second again and loses nothing. Receivers that acknowledge, or whose
// kernel socket is the receiver, move the cursor with each write; others only
// when a second has passed in which the connection held and the kernel had
// passed on everything, since a write to a peer that has just died succeeds.
//
// In the directory of a log, beside its files:
//
//	cursor.json   the cursor
//	feed.json     in the spool alone: driver and Info, to go on after a restart
package forward

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/logs/driver"
)

// LogName is the name of a log in its directory.
const LogName = "container.log"

const (
	cursorName = "cursor.json"
	feedName   = "feed.json"
)

// spoolTime is how long the log of a removed container waits for its receiver.
const spoolTime = time.Hour

// Source is a log and where it goes.
type Source struct {
	Dir    string // of the log
	Driver string
	Info   driver.Info
	// Running gives the channel that is closed when nothing more will be
	// written for now.
	Running func() <-chan struct{} `json:"-"`
}

// Forwarder owns the feeding of all logs. It is safe for concurrent use.
type Forwarder struct {
	spool  string
	unpack logs.Unpack
	log    *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	feeds map[string]*feed
}

// New goes on with what an earlier daemon left in the spool, the directory for
// logs whose containers were removed before all was delivered.
func New(spool string, unpack logs.Unpack, log *slog.Logger) (*Forwarder, error) {
	f := &Forwarder{spool: spool, unpack: unpack, log: log, feeds: map[string]*feed{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	entries, err := os.ReadDir(spool)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		f.respool(e.Name())
	}
	return f, nil
}

// respool goes on with one log of the spool.
func (f *Forwarder) respool(id string) {
	dir := filepath.Join(f.spool, id)
	data, err := os.ReadFile(filepath.Join(dir, feedName))
	var s Source
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	st, serr := os.Stat(filepath.Join(dir, feedName))
	if err = errors.Join(err, serr); err != nil { // of a removal that was cut off
		f.log.Error("the rest of a removed container's log cannot be delivered", "container", id, "err", errors.Join(err, os.RemoveAll(dir)))
		return
	}
	s.Dir, s.Running = dir, over
	f.begin(id, s, st.ModTime().Add(spoolTime))
}

// over is the Running of a log that is not written any more.
func over() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// Begin feeds a log until its Running is closed and all is delivered.
func (f *Forwarder) Begin(id string, s Source) { f.begin(id, s, time.Time{}) }

func (f *Forwarder) begin(id string, s Source, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return
	}
	if x := f.feeds[id]; x != nil {
		x.again = true
		return
	}
	x := &feed{f: f, id: id, s: s, until: until}
	f.feeds[id] = x
	f.wg.Go(func() {
		x.run(f.ctx)
		for f.resume(x) {
			x.run(f.ctx)
		}
	})
}

// resume tells whether a feed that is done was begun again, and forgets it
// otherwise.
func (f *Forwarder) resume(x *feed) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.again && f.ctx.Err() == nil {
		x.again = false
		return true
	}
	delete(f.feeds, x.id)
	if !x.until.IsZero() && f.ctx.Err() == nil {
		if err := os.RemoveAll(x.s.Dir); err != nil {
			f.log.Error("a log that was delivered cannot be deleted", "dir", x.s.Dir, "err", err)
		}
	}
	return false
}

// Spool takes the log of a container that is being removed, if not all of it
// was delivered: it moves into the spool.
func (f *Forwarder) Spool(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.feeds[id]
	if x == nil || !x.until.IsZero() {
		return
	}
	err := os.MkdirAll(f.spool, 0o700)
	var data []byte
	if err == nil {
		data, err = json.Marshal(&x.s)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(x.s.Dir, feedName), data, 0o600)
	}
	dir, until := filepath.Join(f.spool, id), time.Now().Add(spoolTime)
	if err == nil {
		err = os.Rename(x.s.Dir, dir)
	}
	if err != nil {
		f.log.Error("the rest of a removed container's log will not be delivered", "container", id, "err", err)
		dir, until = x.s.Dir, time.Now()
	}
	x.moved(dir, until)
}

// Close stops feeding, and returns when nothing of it runs any more. The next
// daemon goes on where it stopped.
func (f *Forwarder) Close(ctx context.Context) error {
	f.mu.Lock()
	f.cancel()
	f.mu.Unlock()
	done := make(chan struct{})
	go func() {
		f.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

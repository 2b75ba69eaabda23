// Package progress shows the messages of a long operation of the daemon: plain
// lines where nobody watches, and on a terminal one line for each layer, with a
// bar, bytes and a rate, that are redrawn in place.
//
// A message with an ID belongs to the line of that ID. One without an ID ends
// the lines so far: they stay as they are, and new ones begin below it.
package progress

import (
	"io"
	"strings"
	"sync"
	"time"

	"github.com/tarehq/tare/cli/stream"
	"github.com/tarehq/tare/client"
)

// every is how often a terminal is redrawn.
const every = 100 * time.Millisecond

// Display shows the messages of one operation. Message and Close are called by
// one goroutine.
type Display struct {
	out  io.Writer
	size func() (height, width int) // zeros: no terminal
	now  func() time.Time
	live bool

	mu    sync.Mutex // between Message and the redrawing
	rows  []*row
	byID  map[string]*row
	total meter
	drawn []int // columns of each line that stands on the terminal
	dirty bool
	err   error // of the first write that failed

	stop, stopped chan struct{}
}

// New shows messages on out.
func New(out io.Writer) *Display {
	d := newDisplay(out, func() (int, int) {
		h, w := stream.Size(out)
		return int(h), int(w)
	}, time.Now)
	if d.live {
		d.stop, d.stopped = make(chan struct{}), make(chan struct{})
		go d.redraw()
	}
	return d
}

func newDisplay(out io.Writer, size func() (int, int), now func() time.Time) *Display {
	h, w := size()
	return &Display{out: out, size: size, now: now, live: h > 0 && w > 0, byID: map[string]*row{}}
}

// Message shows one message; the error is of the writing.
func (d *Display) Message(p client.Progress) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case p.Stream == "" && p.Status == "":
	case !d.live:
		d.write(plain(p))
	case p.ID == "":
		d.settle()
		d.write(clean(plain(p)))
	default:
		d.update(p)
	}
	return d.err
}

// Close leaves the lines as they are and the cursor below them.
func (d *Display) Close() error {
	if d.stop != nil {
		close(d.stop)
		<-d.stopped
		d.stop = nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settle()
	return d.err
}

// plain renders a message as a line of its own. Steps on the way, which are
// many, give none.
func plain(p client.Progress) string {
	if p.Stream != "" {
		return p.Stream
	}
	if p.Detail != nil && (p.Detail.Current > 0 || p.Detail.Total > 0) {
		return ""
	}
	if p.ID != "" {
		return p.ID + ": " + p.Status + "\n"
	}
	return p.Status + "\n"
}

// clean takes away what would command the terminal: names come from registries.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func (d *Display) write(s string) {
	if d.err == nil && s != "" {
		_, d.err = io.WriteString(d.out, s)
	}
}

func (d *Display) update(p client.Progress) {
	r := d.byID[p.ID]
	if r == nil {
		r = &row{id: strings.ReplaceAll(clean(p.ID), "\n", "?")}
		d.byID[p.ID] = r
		d.rows = append(d.rows, r)
	}
	r.update(p, d.now())
	d.dirty = true
}

func (d *Display) redraw() {
	defer close(d.stopped)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-tick.C:
			d.mu.Lock()
			if d.dirty || d.moving() {
				d.draw()
			}
			d.mu.Unlock()
		}
	}
}

// moving tells whether bytes are under way: their rate changes by itself.
func (d *Display) moving() bool {
	for _, r := range d.rows {
		if r.counting() {
			return true
		}
	}
	return false
}

package keeper

import (
	"bytes"
	"sync"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/supervise"
)

// journal is the container's log. With a bound on what may wait it takes in
// output without waiting for the disk, and loses what comes while the bound is
// reached. Its methods but for the counting are called by one at a time.
type journal struct {
	w     *logs.Writer
	bound int64 // bytes that may wait; 0 waits for the disk

	mu      sync.Mutex // guards what follows; never held over writing
	changed sync.Cond
	queue   []chunk
	waiting int64
	lost    int64 // lines
	gaps    [3]gap
	closing bool
	done    chan struct{} // closed when the queue is written and nobody writes any more

	writing sync.Mutex // of w, while there is a queue
}

// gap is what was lost of a stream, by the number of the stream.
type gap struct {
	open   bool // what came last is lost
	inside bool // what came before it ends in the middle of a line
}

// chunk is output of one stream.
type chunk struct {
	stream logs.Stream
	bytes  []byte
}

// openJournal opens the log that the configuration asks for; nil for none.
func openJournal(c supervise.Log, rotated func()) (*journal, error) {
	switch c.Driver {
	case "json-file":
	case "none":
		return nil, nil
	default:
		return nil, fault.New(fault.NotImplemented, "log driver %q is not supported", c.Driver)
	}
	w, err := logs.NewWriter(c.Path, logOptions(c, rotated))
	if err != nil {
		return nil, err
	}
	j := &journal{w: w, bound: c.Buffer}
	if j.bound > 0 {
		j.changed.L = &j.mu
		j.done = make(chan struct{})
		go j.run()
	}
	return j, nil
}

func logOptions(c supervise.Log, rotated func()) logs.Options {
	return logs.Options{MaxSize: c.MaxSize, MaxFiles: c.MaxFiles, Attrs: []byte(c.Attrs), Rotated: rotated}
}

// write takes in a chunk.
func (j *journal) write(s logs.Stream, p []byte) {
	if j.bound == 0 {
		j.w.Write(s, p)
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.waiting+int64(len(p)) > j.bound && len(j.queue) > 0 {
		j.lost += int64(bytes.Count(p, []byte{'\n'}))
		j.gaps[s].open = true
		return
	}
	if p = j.resume(s, p); len(p) == 0 {
		return
	}
	j.gaps[s].inside = p[len(p)-1] != '\n'
	j.queue = append(j.queue, chunk{s, bytes.Clone(p)})
	j.waiting += int64(len(p))
	j.changed.Signal()
}

// resume cuts from a chunk what belongs to a line whose beginning is lost: no
// line is made of the ends of two.
func (j *journal) resume(s logs.Stream, p []byte) []byte {
	g := &j.gaps[s]
	if !g.open {
		return p
	}
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		return nil
	}
	g.open = false
	if g.inside { // its newline ends the line before the gap
		return p[i:]
	}
	j.lost++
	return p[i+1:]
}

// run writes the queue.
func (j *journal) run() {
	defer close(j.done)
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		for len(j.queue) == 0 {
			if j.closing {
				return
			}
			j.changed.Wait()
		}
		j.mu.Unlock()
		j.writeNext()
		j.mu.Lock()
	}
}

// writeNext writes the oldest chunk, which leaves the queue once it is written.
func (j *journal) writeNext() {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	c := j.queue[0]
	j.mu.Unlock()
	j.w.Write(c.stream, c.bytes)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue[0] = chunk{}
	j.queue = j.queue[1:]
	j.waiting -= int64(len(c.bytes))
}

// snapshot takes hold of what is stored from a place on, nil if it cannot be
// read, and returns a copy of what was taken in and is not stored yet.
func (j *journal) snapshot(from logs.Position) (stored *logs.Snapshot, rest []chunk) {
	j.writing.Lock()
	defer j.writing.Unlock()
	if s, err := logs.Take(j.w.Name(), from, nil); err == nil {
		stored = s
	}
	for _, s := range []logs.Stream{logs.Stdout, logs.Stderr} {
		rest = append(rest, chunk{s, bytes.Clone(j.w.Pending(s))})
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return stored, append(rest, j.queue...)
}

// close stores what waits, and the end of a line that has none.
func (j *journal) close() {
	if j.bound > 0 {
		j.mu.Lock()
		j.closing = true
		j.changed.Signal()
		j.mu.Unlock()
		<-j.done
		for _, g := range j.gaps {
			if g.open && g.inside { // the beginning of a lost line is stored
				j.lost--
			}
		}
	}
	j.w.Close()
}

// dropped returns how many records could not be stored, and why.
func (j *journal) dropped() (records int64, reason string) {
	records, err := j.w.Dropped()
	if err != nil {
		reason = err.Error()
	} else if j.lost > 0 {
		reason = "they came faster than they could be written (mode=non-blocking)"
	}
	return records + j.lost, reason
}

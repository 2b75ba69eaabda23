package keeper

import (
	"slices"
	"sync"

	"github.com/tarehq/tare/logs"
)

// output passes what a process writes to the log and to the attached clients.
type output struct {
	mu       sync.Mutex
	log      *journal // nil for none
	activity *activity
	sessions []*session
	keep     int    // so many bytes are kept for the end
	kept     []byte // of both streams, as they came
	more     bool   // there was more
	hurried  bool   // the process has ended
	ended    bool
}

func newOutput(log *journal, a *activity) *output { return &output{log: log, activity: a} }

// pass passes on the n bytes in a buffer of chunks, and gives it back.
func (o *output) pass(stream logs.Stream, buf *[]byte, n int) {
	frame := (*buf)[:logs.HeaderSize+n]
	header := logs.Header(stream, n)
	copy(frame, header[:])
	o.write(stream, frame)
	chunks.Put(buf)
}

// write passes one chunk on, which stands in frame behind room for its header
// that is filled in already. It waits until no client is far behind: a client
// that does not read stops the process as a full pipe would. Nobody is kept
// from attaching meanwhile.
func (o *output) write(stream logs.Stream, frame []byte) {
	o.mu.Lock()
	if o.log != nil {
		o.log.write(stream, frame[logs.HeaderSize:])
	}
	if o.keep > 0 {
		o.keepLocked(frame[logs.HeaderSize:])
	}
	sessions := o.sessions // replaced, never changed
	for _, s := range sessions {
		s.send(stream, frame)
	}
	o.mu.Unlock()
	o.activity.add(len(frame))
	for _, s := range sessions {
		s.waitRoom()
	}
}

// keepLocked keeps what there is room for.
func (o *output) keepLocked(p []byte) {
	n := min(len(p), o.keep-len(o.kept))
	o.kept = append(o.kept, p[:n]...)
	o.more = o.more || n < len(p)
}

// head gives what was kept, and whether there was more.
func (o *output) head() ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kept, o.more
}

// attach adds a session. The session's prelude gets, under the lock that no
// chunk passes, what it needs for the replay of the log.
func (o *output) attach(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.prepare(o.log)
	if o.ended || s.o.NoStream {
		s.finish()
		return
	}
	if o.hurried {
		s.hurry()
	}
	o.sessions = append(slices.Clip(o.sessions), s)
}

// detach takes a session away.
func (o *output) detach(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sessions = slices.DeleteFunc(slices.Clone(o.sessions), func(x *session) bool { return x == s })
}

// hurry is called when the process has ended: what it wrote is not held back
// any more for the sake of a client that does not read, but kept for it.
func (o *output) hurry() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hurried = true
	for _, s := range o.sessions {
		s.hurry()
	}
}

// tell sends the exit code behind the output to the clients that want it there.
func (o *output) tell(code int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.sessions {
		s.tell(code)
	}
}

// finish ends the output: the log is complete, and the clients' sockets are
// shut down behind the last byte. It returns the log.
func (o *output) finish() *journal {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for _, s := range o.sessions {
		s.finish()
	}
	o.sessions = nil
	if o.log != nil {
		o.log.close()
	}
	return o.log
}

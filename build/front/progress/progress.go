// Package progress keeps what is told of a build, in the shapes of BuildKit's
// clients.
package progress

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tarehq/tare/build"
)

// Record keeps what was told of a build, for those who follow it now or
// ask later. It is a build.Progress.
type Record struct {
	mu      sync.Mutex
	events  []*controlapi.StatusResponse
	readers map[*reader]bool
	changed chan struct{} // closed at the next change
	ended   bool
	over    chan struct{} // closed then

	printed  map[digest.Digest]printed // by vertex
	begun    map[string]time.Time      // of tasks
	vertices map[digest.Digest]*controlapi.Vertex
	warnings int32
}

var _ build.Progress = (*Record)(nil)

// New begins to keep.
func New() *Record {
	return &Record{readers: map[*reader]bool{}, changed: make(chan struct{}), over: make(chan struct{}), printed: map[digest.Digest]printed{}, begun: map[string]time.Time{}, vertices: map[digest.Digest]*controlapi.Vertex{}}
}

func (r *Record) addLocked(e *controlapi.StatusResponse) {
	if r.ended {
		return
	}
	r.events = append(r.events, e)
	close(r.changed)
	r.changed = make(chan struct{})
}

// End says that nothing follows.
func (r *Record) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.ended = true
		close(r.changed)
		close(r.over)
	}
}

// gatherTime is how long what is told is gathered into one message when something
// was sent just before. A build that finds all in the cache tells of each step twice in
// a few milliseconds, and a message costs both sides more than what it says.
const gatherTime = 20 * time.Millisecond

// maxGathered bounds such a message, in bytes. Clients take 16 MiB, and who comes late or
// does not read gets much at once.
const maxGathered = 1 << 20

// FollowGathered is Follow for who need not see each thing told by itself.
func (r *Record) FollowGathered(ctx context.Context, send func(*controlapi.StatusResponse) error) error {
	at := r.join()
	defer r.leave(at)
	for first := true; ; first = false {
		select {
		case <-r.more(at):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !first {
			timer := time.NewTimer(gatherTime)
			select {
			case <-r.over:
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		}
		events, _, ended := r.take(at)
		for len(events) > 0 {
			var e *controlapi.StatusResponse
			e, events = gather(events)
			if err := send(e); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}

// reader is how far somebody has read. Guarded by the record's mu.
type reader struct{ next int }

func (r *Record) join() *reader {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := &reader{}
	r.readers[at] = true
	return at
}

func (r *Record) leave(at *reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.readers, at)
}

// take returns what follows, and what is closed when there is more.
func (r *Record) take(at *reader) (events []*controlapi.StatusResponse, changed <-chan struct{}, ended bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events = slices.Clone(r.events[at.next:])
	at.next = len(r.events)
	return events, r.changed, r.ended
}

// more is closed when there is more than was taken, or the last was told.
func (r *Record) more(at *reader) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) > at.next || r.ended {
		return closed
	}
	return r.changed
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// gather makes one message of the first events.
func gather(events []*controlapi.StatusResponse) (e *controlapi.StatusResponse, rest []*controlapi.StatusResponse) {
	e = &controlapi.StatusResponse{}
	size := 0
	for i, one := range events {
		size += proto.Size(one)
		if i > 0 && size > maxGathered {
			return e, events[i:]
		}
		e.Vertexes, e.Statuses = append(e.Vertexes, one.Vertexes...), append(e.Statuses, one.Statuses...)
		e.Logs, e.Warnings = append(e.Logs, one.Logs...), append(e.Warnings, one.Warnings...)
	}
	return e, nil
}

// Follow sends all that was and will be told, each thing by itself, until the end.
func (r *Record) Follow(ctx context.Context, send func(*controlapi.StatusResponse) error) error {
	at := r.join()
	defer r.leave(at)
	for {
		events, changed, ended := r.take(at)
		for _, e := range events {
			if err := send(e); err != nil {
				return err
			}
		}
		if len(events) > 0 {
			continue
		}
		if ended {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// All returns what was told so far.
func (r *Record) All() []*controlapi.StatusResponse {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Counts are of vertices: all, those that ended, those that the cache had.
func (r *Record) Counts() (total, completed, cached, warnings int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range r.vertices {
		total++
		if v.Completed != nil {
			completed++
		}
		if v.Cached {
			cached++
		}
	}
	return total, completed, cached, r.warnings
}

func (r *Record) Vertex(v build.VertexStatus) {
	e := &controlapi.Vertex{Digest: v.Digest.String(), Name: v.Name, Cached: v.Cached, Started: stamp(v.Started), Completed: stamp(v.Completed), Error: v.Error, ProgressGroup: v.Group}
	for _, d := range v.Inputs {
		e.Inputs = append(e.Inputs, d.String())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.vertices[v.Digest] = e
	r.addLocked(&controlapi.StatusResponse{Vertexes: []*controlapi.Vertex{e}})
}

func (r *Record) Status(s build.TaskStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.At.IsZero() {
		s.At = time.Now()
	}
	key := s.Vertex.String() + " " + s.ID
	if s.Started == nil {
		began, ok := r.begun[key]
		if !ok {
			began = s.At
			r.begun[key] = began
		}
		s.Started = &began
	}
	if s.Completed == nil && isOver(s) {
		s.Completed = &s.At
	}
	r.addLocked(&controlapi.StatusResponse{Statuses: []*controlapi.VertexStatus{{ID: s.ID, Vertex: s.Vertex.String(), Name: s.Name, Current: s.Current,
		Total: s.Total, Timestamp: timestamppb.New(s.At), Started: stamp(s.Started), Completed: stamp(s.Completed)}}})
}

// isOver tells by its words whether the transfer of a blob has ended.
func isOver(s build.TaskStatus) bool {
	name := strings.ToLower(s.Name)
	return strings.Contains(name, "complete") || strings.Contains(name, "already exists") || name == "pushed"
}

func (r *Record) Warn(vertex digest.Digest, w build.Warning) {
	r.Remark(&controlapi.VertexWarning{Vertex: vertex.String(), Level: int64(w.Level), Short: w.Short, Detail: w.Detail, Url: w.URL})
}

// Remark passes a remark on as it came, with its place in a file.
func (r *Record) Remark(w *controlapi.VertexWarning) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings++
	r.addLocked(&controlapi.StatusResponse{Warnings: []*controlapi.VertexWarning{w}})
}

func stamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

// Task tells of work that is no vertex of a definition as if it were one. At its
// end the function returned is called with the error.
func Task(p build.Progress, name string) (vertex digest.Digest, end func(error)) {
	began := time.Now()
	v := build.VertexStatus{Digest: digest.FromString(name + began.String()), Name: name, Started: &began}
	p.Vertex(v)
	return v.Digest, func(err error) {
		ended := time.Now()
		v.Completed = &ended
		if err != nil {
			v.Error = err.Error()
		}
		p.Vertex(v)
	}
}

// Part tells of a part of such work that has a name and no size.
func Part(p build.Progress, vertex digest.Digest, name string) (end func()) {
	s := build.TaskStatus{ID: name, Vertex: vertex, At: time.Now()}
	began := s.At
	s.Started = &began
	p.Status(s)
	return func() {
		s.At = time.Now()
		ended := s.At
		s.Completed = &ended
		p.Status(s)
	}
}

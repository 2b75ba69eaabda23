package progress

import (
	"fmt"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxOutput bounds the output of one vertex that is kept, in bytes, as BuildKit
// does. What is beyond is not shown.
const maxOutput = 2 << 20

// A program may print each byte by itself, and an event takes hundreds: pieces of
// output that follow each other are kept as one of up to maxJoined bytes, also
// if up to nearPieces events of others are between them. Those that cannot be, as
// they go to two streams by turns, are at most maxPieces.
const (
	maxJoined  = 32 << 10
	nearPieces = 16
	maxPieces  = 1 << 17
)

// printed is the output of a vertex.
type printed struct{ bytes, pieces int }

// Log tells what a vertex printed.
func (r *Record) Log(vertex digest.Digest, stream int, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.printed[vertex]
	if r.ended || p.bytes > maxOutput || p.pieces > maxPieces {
		return
	}
	room := maxOutput - p.bytes
	p.bytes, p.pieces = p.bytes+len(data), p.pieces+1
	switch {
	case p.pieces > maxPieces:
		data = fmt.Appendf(nil, "\n[output clipped, log limit of %d pieces reached]\n", maxPieces)
	case len(data) > room:
		data = append(data[:room:room], fmt.Sprintf("\n[output clipped, log limit %d MiB reached]\n", maxOutput>>20)...)
	default:
		data = append([]byte(nil), data...) // it is the caller's
	}
	p.pieces -= r.joinLocked(len(r.events) - 1) // the one before, which by now most have read
	r.addLocked(&controlapi.StatusResponse{Logs: []*controlapi.VertexLog{{Vertex: vertex.String(), Stream: int64(stream), Msg: data, Timestamp: timestamppb.Now()}}})
	p.pieces -= r.joinLocked(len(r.events) - 1)
	r.printed[vertex] = p
}

// joinLocked makes the event i one with that before it whose output it goes on with, unless
// somebody has read the one and not the other. It returns how many pieces fewer there are.
func (r *Record) joinLocked(i int) int {
	j := r.beforeLocked(i)
	if j < 0 {
		return 0
	}
	for at := range r.readers {
		if j < at.next && at.next <= i {
			return 0
		}
	}
	a, b := r.events[j].Logs[0], r.events[i].Logs[0]
	// Another message, as the first may be on its way to somebody.
	r.events[j] = &controlapi.StatusResponse{Logs: []*controlapi.VertexLog{{Vertex: a.Vertex, Stream: a.Stream, Msg: append(a.Msg, b.Msg...), Timestamp: a.Timestamp}}}
	r.events = append(r.events[:i], r.events[i+1:]...)
	for at := range r.readers {
		if at.next > i {
			at.next--
		}
	}
	return 1
}

// beforeLocked finds the output with which the event i goes on, -1 if there is none.
func (r *Record) beforeLocked(i int) int {
	if i < 0 || len(r.events[i].Logs) != 1 {
		return -1
	}
	log := r.events[i].Logs[0]
	for j := i - 1; j >= max(0, i-1-nearPieces); j-- {
		if len(r.events[j].Logs) != 1 || r.events[j].Logs[0].Vertex != log.Vertex {
			continue
		}
		if a := r.events[j].Logs[0]; a.Stream == log.Stream && len(a.Msg)+len(log.Msg) <= maxJoined {
			return j
		}
		return -1
	}
	return -1
}

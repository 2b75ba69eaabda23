package container

import (
	"context"
	"slices"
	"time"

	"github.com/tarehq/tare/container/stream"
	"github.com/tarehq/tare/supervise"
)

// attachment is a client on its way to a supervising process.
type attachment struct {
	options supervise.AttachOptions
	client  *stream.Client
}

// seat is the place of a client in the next run of a container. It is taken
// before the client is told that it is attached: the start that the client asks
// for as soon as it reads that finds the seat, and waits for the client to have
// been brought to it. Otherwise a quick container would say all that it has to
// say in between.
type seat struct {
	ready chan struct{} // closed when it is occupied, or not needed

	// guarded by live.mu
	attachment      // without a client until it is occupied
	missed     bool // nobody looks at it any more
}

// seatPatience bounds how long a start waits for a client that does not take the
// head of its answer, or the log that comes before the output.
const seatPatience = 10 * time.Second

// addLocked makes a seat.
func (l *live) addLocked() *seat {
	p := &seat{ready: make(chan struct{})}
	l.pending = append(present(l.pending), p)
	return p
}

// takeLocked occupies the seat.
func (p *seat) takeLocked(a attachment) {
	p.attachment = a
	close(p.ready)
}

// occupy brings a client to its seat; false without one, or when it is too late.
func (l *live) occupy(p *seat, a attachment) bool {
	if p == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.missed {
		return false
	}
	p.takeLocked(a)
	return true
}

// vacate gives a seat up that was not occupied.
func (l *live) vacate(p *seat) {
	if p == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.client != nil || p.missed {
		return
	}
	p.missed = true
	l.pending = slices.DeleteFunc(l.pending, func(o *seat) bool { return o == p })
	close(p.ready)
}

// takePending takes the clients that attached before the start. It waits for those
// that have been promised to be attached.
func (l *live) takePending(ctx context.Context) []attachment {
	l.mu.Lock()
	seats := present(l.pending)
	l.pending = nil
	l.mu.Unlock()
	if slices.ContainsFunc(seats, func(p *seat) bool { return !p.isReady() }) {
		ctx, cancel := context.WithTimeout(ctx, seatPatience)
		defer cancel()
		for _, p := range seats {
			select {
			case <-p.ready:
			case <-ctx.Done():
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return occupants(seats)
}

func (p *seat) isReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// occupants are the clients on seats, which nobody looks at any more. live.mu is
// held.
func occupants(seats []*seat) (list []attachment) {
	for _, p := range seats {
		if p.client != nil {
			list = append(list, p.attachment)
		} else {
			p.missed = true
		}
	}
	return list
}

// takeLateLocked takes the clients that attached since takePending.
func (l *live) takeLateLocked() []attachment {
	late := occupants(l.pending)
	l.pending = nil
	return late
}

// present drops the clients that have gone while they waited. live.mu is held.
func present(list []*seat) []*seat {
	return slices.DeleteFunc(list, func(p *seat) bool {
		gone := p.client != nil && p.client.Gone()
		if gone {
			p.client.Close()
		}
		return gone
	})
}

// maxAtStart is how many clients are attached in one message with the start.
const maxAtStart = 64

// run runs the container of the bundle with these clients attached.
func (b *bundle) run(ctx context.Context, config supervise.Config, waiting []attachment) (*supervise.Keeper, error) {
	launcher := b.containers.cfg.Launcher
	defer closeAll(waiting)
	if len(waiting) <= maxAtStart {
		return launcher.Run(ctx, config, clients(waiting))
	}
	keeper, err := launcher.Create(ctx, config)
	if err != nil {
		return nil, err
	}
	handOver(ctx, keeper, waiting)
	if _, _, err := keeper.Start(ctx); err != nil {
		keeper.Close()
		return nil, err
	}
	return keeper, nil
}

func clients(list []attachment) []supervise.Client {
	var out []supervise.Client
	for _, a := range list {
		out = append(out, supervise.Client{Options: a.options, Conn: a.client.File})
	}
	return out
}

// closeAll drops our descriptors of clients' sockets: the other process has
// its own, or the sessions end.
func closeAll(list []attachment) {
	for _, a := range list {
		a.client.Close()
	}
}

// handOver attaches clients to a run. If it is over by then they see its end.
func handOver(ctx context.Context, keeper *supervise.Keeper, list []attachment) {
	for _, a := range list {
		_ = keeper.Attach(ctx, a.options, a.client.File)
	}
}

// dropPending ends the sessions of clients whose container will not start.
func (l *live) dropPending() {
	l.mu.Lock()
	defer l.mu.Unlock()
	closeAll(l.takeLateLocked())
}

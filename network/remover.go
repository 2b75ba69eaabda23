package network

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/tarehq/tare/network/link"
)

// Deleting an interface and ending a network namespace cost the kernel 20 to
// 60 ms, in most of which nobody else on the host can change an interface; for
// many together they cost hardly more. So they wait for a quiet moment or until
// there are many.
const (
	removalPause = 100 * time.Millisecond // without Attach and Detach
	removalBatch = 64
)

// removal is an interface to delete, with the namespace of its other end if
// that was held, and what is left to do when it is gone.
type removal struct {
	host  string // "" when it goes with the namespace
	ns    *os.File
	after func() // may be nil
	// network is whose driver after asks, who may take its time; "" for none.
	network string
}

// remover deletes interfaces in the background. What drivers are asked for is
// done beside that, network by network, so that one that hangs holds up nobody
// else's.
type remover struct {
	host *link.Host
	// before is called before interfaces are deleted and addresses are free;
	// they are among what it withdraws. stirred is called when something has
	// happened.
	before, stirred func()

	wake chan struct{} // something happened
	busy sync.Mutex    // held while interfaces are deleted

	mu      sync.Mutex // guards what follows
	doomed  []removal
	leaving map[string]*farewell // by network
	leaves  sync.WaitGroup
}

// farewell is what a network's driver is still to be asked for, one after the
// other.
type farewell struct {
	left []func()
	done chan struct{}
}

func newRemover(host *link.Host, before, stirred func()) *remover {
	return &remover{host: host, before: before, stirred: stirred, wake: make(chan struct{}, 1), leaving: map[string]*farewell{}}
}

// doom hands interfaces to the remover.
func (r *remover) doom(what ...removal) {
	r.mu.Lock()
	r.doomed = append(r.doomed, what...)
	r.mu.Unlock()
	r.signal()
}

// signal tells the remover that something happened.
func (r *remover) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run deletes interfaces after their time, until ctx ends. What is left then is
// finish's.
func (r *remover) run(ctx context.Context) {
	quiet := time.NewTimer(removalPause)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			r.stirred()
			quiet.Reset(removalPause)
			if r.count() < removalBatch {
				continue
			}
		case <-quiet.C:
		}
		r.clear()
	}
}

func (r *remover) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.doomed)
}

// clear deletes what is to be deleted now; when it returns all that was handed
// over before is gone, but for what drivers are asked for.
func (r *remover) clear() {
	r.busy.Lock()
	defer r.busy.Unlock()
	r.mu.Lock()
	batch := r.doomed
	r.doomed = nil
	r.mu.Unlock()
	r.remove(batch)
}

// settle is clear with what the network's driver is asked for.
func (r *remover) settle(networkID string) {
	r.clear()
	r.mu.Lock()
	f := r.leaving[networkID]
	r.mu.Unlock()
	if f != nil {
		<-f.done
	}
}

// finish is clear with what all drivers are asked for.
func (r *remover) finish() {
	r.clear()
	r.leaves.Wait()
}

// remove deletes the interfaces with one wait of the kernel for all, lets go of
// their namespaces and does what is left to do. The other ends go with the
// interfaces.
func (r *remover) remove(batch []removal) {
	if len(batch) == 0 {
		return
	}
	r.before()
	var names []string
	for _, one := range batch {
		names = append(names, one.host)
	}
	r.host.Delete(names)
	for _, one := range batch {
		if one.ns != nil {
			one.ns.Close()
		}
		switch gone := r.host.Gone(one.host); {
		case !gone || one.after == nil:
		case one.network != "":
			r.ask(one.network, one.after)
		default:
			one.after()
		}
	}
}

// ask has f done after what the network's driver is asked for already.
func (r *remover) ask(networkID string, f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at := r.leaving[networkID]; at != nil {
		at.left = append(at.left, f)
		return
	}
	at := &farewell{left: []func(){f}, done: make(chan struct{})}
	r.leaving[networkID] = at
	r.leaves.Go(func() {
		for f := r.next(networkID, at); f != nil; f = r.next(networkID, at) {
			f()
		}
	})
}

func (r *remover) next(networkID string, at *farewell) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(at.left) == 0 {
		delete(r.leaving, networkID)
		close(at.done)
		return nil
	}
	f := at.left[0]
	at.left = at.left[1:]
	return f
}

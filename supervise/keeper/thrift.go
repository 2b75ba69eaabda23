package keeper

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

// thrift collects the garbage and gives memory back to the system. The process
// runs with GOGC=50, which first collects at two megabytes: a container that
// lives for a few milliseconds is not to pay for a collection. Later ones bound
// the heap of a busy process, since the runtime's bookkeeping grows with it and
// is never given back: see renew.
func thrift() {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // buffers in a sync.Pool survive one collection
}

const (
	// busy is the activity in bytes after which thrift is due.
	busy = 1 << 20
	// settleTime is how long after its start a container is looked at.
	settleTime = time.Second
	// quiet is how long there must have been none.
	quiet = 2 * time.Second

	// roughly what these leave behind
	requestGarbage = 16 << 10
	execGarbage    = 32 << 10
)

// activity watches output and requests for the end of a busy time.
type activity struct {
	rest  func() // called at the end
	bytes atomic.Int64
	timer atomic.Bool // a look at it is under way
}

func (a *activity) add(n int) {
	if a.bytes.Add(int64(n)) >= busy && a.timer.CompareAndSwap(false, true) {
		time.AfterFunc(quiet, a.look)
	}
}

// look calls rest if nothing was written since the last look.
func (a *activity) look() {
	if a.bytes.Swap(0) > 0 {
		time.AfterFunc(quiet, a.look)
		return
	}
	a.timer.Store(false)
	a.rest()
}

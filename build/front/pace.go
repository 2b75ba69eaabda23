package front

import (
	"runtime"
	"sync"
	"time"

	"github.com/tarehq/tare/internal/thread"
)

// shortTime is how long a build that comes when nobody builds has one processor of
// the machine. One that finds all in the cache is over by then, and is messages to and
// fro: with a second processor, each is a thread to be woken there, and on a virtual
// machine that takes longer than what it has to do.
const shortTime = 40 * time.Millisecond

// pace keeps Go code to one processor at the beginning of a build.
type pace struct {
	mu    sync.Mutex
	there int
	more  *time.Timer
}

// begin is called at the beginning of a build, and the function returned at its end.
func (p *pace) begin() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.there++; p.there == 1 {
		runtime.GOMAXPROCS(1)
		p.more = time.AfterFunc(shortTime, thread.Processors)
	} else if p.more.Stop() {
		thread.Processors()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.there--; p.there == 0 && p.more.Stop() {
			thread.Processors()
		}
	}
}

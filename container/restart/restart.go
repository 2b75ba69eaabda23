// Package restart is the restart policy: whether it wants another run of a container, and
// how long that waits.
package restart

import (
	"sync"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
)

// Wanted tells whether a policy wants another run after one that ended with
// code, having restarted it so many times.
func Wanted(p wire.RestartPolicy, code, count int) bool {
	switch p.Name {
	case wire.RestartPolicyAlways, wire.RestartPolicyUnlessStopped:
		return true
	case wire.RestartPolicyOnFailure:
		return code != 0 && (p.MaximumRetryCount == 0 || count < p.MaximumRetryCount)
	}
	return false
}

// WantedAnew tells whether a policy wants a new daemon to start a container
// that has ended: always even one that was stopped by hand, and unless-stopped
// one that an earlier try could not start.
func WantedAnew(r *record.Record) bool {
	switch r.HostConfig.RestartPolicy.Name {
	case wire.RestartPolicyAlways:
		return true
	case wire.RestartPolicyUnlessStopped:
		return !r.ManuallyStopped
	}
	return false
}

// The waits of a restart policy double from minBackoff to maxBackoff, and a
// run of at least steadyRun begins anew, as Docker has it.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = time.Minute
	steadyRun  = 10 * time.Second
)

// Tries are a policy's tries to run one container again. The zero value has had none; it is
// safe for concurrent use.
type Tries struct {
	mu     sync.Mutex
	held   bool          // the policy rests for the end of this run: it is being restarted
	giveUp chan struct{} // closed to cancel the next try
	wait   time.Duration // the last one
}

// Hold lets the policy rest for the end of the present run.
func (t *Tries) Hold(held bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = held
}

// Held tells whether it rests.
func (t *Tries) Held() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held
}

// Forget has the waits begin anew.
func (t *Tries) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wait = 0
}

// Wait is how long to wait before the next run, after one of some length.
func (t *Tries) Wait(ran time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wait *= 2; t.wait == 0 || ran >= steadyRun {
		t.wait = minBackoff
	}
	t.wait = min(t.wait, maxBackoff)
	return t.wait
}

// Begin begins the wait for the next try; the channel is closed when
// somebody calls it off.
func (t *Tries) Begin() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveUp = make(chan struct{})
	return t.giveUp
}

// CallOff ends the wait for the next try, if there is one.
func (t *Tries) CallOff() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.giveUp != nil {
		close(t.giveUp)
		t.giveUp = nil
	}
}

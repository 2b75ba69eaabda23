package keeper

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Two who bar it by turns, so that it is never free, hold no renewal up.
func TestRenewalBesideOutputThatNeverStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRenewal()
		over := make(chan struct{})
		var busy sync.WaitGroup
		for i := range 2 {
			busy.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				for {
					select {
					case <-over:
						return
					default:
					}
					r.bar()
					time.Sleep(2 * time.Millisecond)
					r.unbar()
				}
			})
		}
		time.Sleep(10 * time.Millisecond)
		if !r.begin() {
			t.Error("the output goes on before the renewal")
		}
		time.Sleep(10 * time.Millisecond)
		if r.bars != 0 {
			t.Errorf("%d bar it while it is under way", r.bars)
		}
		r.end()
		close(over)
		busy.Wait()
	})
}

// Who bars it for longer keeps it from happening, and nobody waits for it then.
func TestRenewalGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRenewal()
		r.bar()
		if r.begin() {
			t.Error("it happens though it is barred")
		}
		r.bar()
		r.unbar()
		r.unbar()
		if !r.begin() {
			t.Error("it does not happen though nobody bars it")
		}
		r.end()
	})
}

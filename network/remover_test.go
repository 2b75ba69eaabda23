package network

import (
	"slices"
	"sync"
	"testing"

	"github.com/tarehq/tare/network/link"
)

// A driver that does not answer holds up what else is to be done with its own
// network alone, and that stays in order.
func TestRemovalGoesAroundADriverThatHangs(t *testing.T) {
	host, err := link.Open("tvnobody")
	must(t, err)
	defer host.Close()
	r := newRemover(host, func() {}, func() {})
	var mu sync.Mutex
	var done []string
	does := func(what string) func() {
		return func() {
			mu.Lock()
			defer mu.Unlock()
			done = append(done, what)
		}
	}
	so := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(done)
	}
	answer := make(chan struct{})
	r.doom(removal{network: "hangs", after: func() { <-answer; does("first")() }},
		removal{network: "hangs", after: does("second")},
		removal{network: "other", after: does("other")})
	r.settle("other")
	r.doom(removal{after: does("bridge")})
	r.clear()
	if got := so(); !slices.Equal(got, []string{"other", "bridge"}) {
		t.Errorf("while the driver hangs: %v", got)
	}
	close(answer)
	r.settle("hangs")
	r.finish()
	if got := so(); !slices.Equal(got, []string{"other", "bridge", "first", "second"}) {
		t.Errorf("at the end: %v", got)
	}
}

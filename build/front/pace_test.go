package front

import (
	"runtime"
	"testing"
)

// A build that comes alone has one processor at its beginning; when another comes, or it
// is over, there are as many as GOMAXPROCS says.
func TestPaceKeepsToGOMAXPROCS(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	t.Setenv("GOMAXPROCS", "3")
	var p pace
	see := func(when string, want int) {
		t.Helper()
		if n := runtime.GOMAXPROCS(0); n != want {
			t.Errorf("%s there are %d processors, want %d", when, n, want)
		}
	}
	first := p.begin()
	if p.more.Stop() { // so that a slow machine changes nothing
		p.more.Reset(shortTime << 10)
	}
	see("at the beginning", 1)
	second := p.begin()
	see("with a second build", 3)
	first()
	second()
	runtime.GOMAXPROCS(1)
	p.begin()()
	see("at the end", 3)
}

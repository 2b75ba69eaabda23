package thread

import (
	"runtime"
	"testing"
)

// Who sets GOMAXPROCS gets as many processors back, and no more.
func TestProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	t.Setenv("GOMAXPROCS", "3")
	runtime.GOMAXPROCS(1)
	if Processors(); runtime.GOMAXPROCS(0) != 3 {
		t.Errorf("it has %d processors, GOMAXPROCS says 3", runtime.GOMAXPROCS(0))
	}
	for _, text := range []string{"", "many", "-1"} {
		t.Setenv("GOMAXPROCS", text)
		runtime.SetDefaultGOMAXPROCS()
		want := runtime.GOMAXPROCS(0)
		runtime.GOMAXPROCS(want + 1)
		if Processors(); runtime.GOMAXPROCS(0) != want {
			t.Errorf("with %q it has %d processors, want %d", text, runtime.GOMAXPROCS(0), want)
		}
	}
}

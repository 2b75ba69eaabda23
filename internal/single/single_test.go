package single

import (
	"runtime"
	"testing"
)

func TestSingle(t *testing.T) {
	if n := runtime.GOMAXPROCS(0); n != 1 {
		t.Errorf("Go code may use %d processors", n)
	}
}

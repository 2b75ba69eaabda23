package keeper

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tarehq/tare/supervise"
)

// What is kept of execs that have ended is bounded in number, in bytes and in
// time.
func TestEndedExecsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &execs{}
		run := func(id string, once bool, note int) *exec {
			e := &exec{known: known{supervise.ExecStatus{ID: id, Args: []string{"true"}, Note: []byte(strings.Repeat("n", note))}, once}, done: make(chan struct{})}
			if err := x.add(e); err != nil {
				t.Fatal(err)
			}
			x.end(e, supervise.ExecExit{Code: 3, EndedAt: time.Now()})
			return e
		}
		for i := range exitsKept + 10 {
			run(fmt.Sprint(i), false, 10)
		}
		list := x.list()
		if len(list) != exitsKept || list[0].ID != "10" || x.bytes != exitsKept*(10+len("true")) {
			t.Errorf("%d are kept from %s on, of %d bytes", len(list), list[0].ID, x.bytes)
		}
		run("large", false, bytesKept-100)
		if list := x.list(); len(list) > 10 || x.bytes > bytesKept {
			t.Errorf("beside a large one %d are kept, of %d bytes", len(list), x.bytes)
		}
		time.Sleep(exitKept + time.Second)
		run("once", true, 0)
		if list := x.list(); len(list) != 1 {
			t.Errorf("of old ones %d are kept", len(list)-1)
		}
		for i, want := range []int{3, 0} {
			if exit, err := x.wait(t.Context(), "once"); exit.Code != want || (err == nil) != (i == 0) {
				t.Errorf("told the %dth time: %+v, %v", i+1, exit, err)
			}
		}
		if x.bytes != 0 || len(x.ended) != 0 {
			t.Errorf("%d bytes of %d are left", x.bytes, len(x.ended))
		}
	})
}

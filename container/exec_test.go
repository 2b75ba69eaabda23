package container

import (
	"os/exec"
	"testing"
	"testing/synctest"
)

// A client that saw the end of an exec's output before the daemon heard of its
// beginning gets the exit code all the same.
func TestSettleBeforeMade(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		n := &session{id: "x", made: make(chan struct{}), done: make(chan struct{})}
		if err := n.begin(); err != nil {
			t.Fatal(err)
		}
		settled := false
		go func() { n.settle(t.Context()); settled = true }()
		still := func(when string) {
			t.Helper()
			synctest.Wait()
			if settled {
				t.Fatalf("settled %s", when)
			}
		}
		still("before its beginning")
		n.mu.Lock()
		n.pid = cmd.Process.Pid
		n.mu.Unlock()
		close(n.made)
		still("before its end")
		n.end(9)
		synctest.Wait()
		if !settled || *n.code != 9 {
			t.Errorf("settled: %v, the exit code is %v", settled, *n.code)
		}
	})
}

package container

import (
	"context"
	"os/exec"
	"testing"
	"time"
)

// A client that saw the end of an exec's output before the daemon heard of its
// beginning gets the exit code all the same.
func TestSettleBeforeMade(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	n := &session{id: "x", made: make(chan struct{}), done: make(chan struct{})}
	if err := n.begin(); err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		n.mu.Lock()
		n.pid = cmd.Process.Pid
		n.mu.Unlock()
		close(n.made)
		time.Sleep(20 * time.Millisecond)
		n.end(9)
	}()
	n.settle(context.Background())
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.code == nil || *n.code != 9 {
		t.Errorf("the exit code is %v", n.code)
	}
}

package e2e

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestOperationsMeetTheEnd stops and removes containers at the moment that they end:
// no stop fails, the events come in their order, and no bundle is left.
func TestOperationsMeetTheEnd(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	for range 25 {
		id := strings.TrimSpace(d.Tare(t, "run", "-d", "--network", "none", "busybox", "sleep", "1000"))
		var at sync.WaitGroup
		at.Go(func() { _, _ = d.Try("kill", id) })
		for range 2 {
			at.Go(func() {
				if _, err := d.Try("stop", "-t", "5", id); err != nil && !strings.Contains(err.Error(), "No such container") {
					t.Error(err)
				}
			})
		}
		at.Go(func() {
			if _, err := d.Try("rm", "-f", id); err != nil {
				t.Error(err)
			}
		})
		at.Wait()
		told := d.Tare(t, "events", "--since", "1m", "--until", "0s", "--filter", "container="+id, "--filter", "event=die",
			"--filter", "event=destroy", "--format", "{{.Action}}")
		if told != "die\ndestroy" {
			t.Errorf("told: %q", told)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left, err := os.ReadDir(d.Dir + "/exec/c")
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", left)
		}
	}
}

package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestCrowd starts a hundred containers at once, half of them on the bridge:
// none fails, all are listed by this daemon and by the next one, and all are
// removed at once; nothing is left, which the daemon's end looks for. With
// TARE_SOAK set there are a thousand.
func TestCrowd(t *testing.T) {
	testutil.RequireRoot(t)
	size := 100
	if os.Getenv("TARE_SOAK") != "" {
		size = 1000
	}
	d := daemon.New(t)
	d.Add("--bip", "10.130.0.1/20") // later than the kit's own, which has room for fewer
	d.Up(t)
	d.ImportBusybox(t)
	ids := make([]string, size)
	all(t, size, func(i int) (err error) {
		network := []string{"none", "bridge"}[i%2]
		ids[i], err = d.Try("run", "-d", "--name", fmt.Sprintf("crowd-%d", i), "--network", network, "busybox", "sleep", "100000")
		return err
	})
	if t.Failed() {
		return
	}
	listed := func(when string) {
		t.Helper()
		running := map[string]bool{}
		for _, id := range strings.Fields(d.Tare(t, "ps", "-q", "--no-trunc", "--filter", "status=running")) {
			running[id] = true
		}
		for i, id := range ids {
			if !running[id] {
				t.Errorf("%s crowd-%d is not listed as running", when, i)
			}
		}
		if len(running) != size {
			t.Errorf("%s %d containers run, not %d", when, len(running), size)
		}
	}
	listed("after the start,")
	addresses := map[string]string{}
	format := "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
	for i := 1; i < size; i += 2 { // those on the bridge
		name, address, _ := strings.Cut(d.Tare(t, "inspect", "--format", format, ids[i]), " ")
		if other := addresses[address]; other != "" {
			t.Errorf("%s and %s have the address %q", name, other, address)
		}
		addresses[address] = name
	}
	d.Signal(t, syscall.SIGKILL)
	d.Up(t)
	listed("by the next daemon")
	all(t, size, func(i int) error {
		_, err := d.Try("rm", "-f", ids[i])
		return err
	})
	if left := d.Tare(t, "ps", "-aq"); left != "" {
		t.Errorf("still listed: %s", left)
	}
}

// all does something so many times at once.
func all(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := do(i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

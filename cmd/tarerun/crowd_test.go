package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
)

// TestCrowd creates, starts and deletes many containers at once, by a process for
// each step: none fails, each has run, and nothing is left. With TARE_SOAK set
// there are five hundred.
func TestCrowd(t *testing.T) {
	size := 50
	if os.Getenv("TARE_SOAK") != "" {
		size = 500
	}
	b := newBench(t, "sh", "-c", "exit 7")
	step := func(args ...string) (string, error) {
		cmd := exec.Command("/proc/self/exe", append([]string{"--root", b.root}, args...)...)
		cmd.Env = append(os.Environ(), "TARERUN_TEST_MAIN=1")
		cmd.Dir = b.bundle
		said, err := os.CreateTemp(t.TempDir(), "said") // a pipe would be held open by the container
		if err != nil {
			return "", err
		}
		defer said.Close()
		cmd.Stdout, cmd.Stderr = said, said
		err = cmd.Run()
		text, _ := os.ReadFile(said.Name())
		return string(text), err
	}
	var wg sync.WaitGroup
	for i := range size {
		wg.Go(func() {
			id := fmt.Sprintf("%s-%d", b.id, i)
			for _, verb := range []string{"create", "start"} {
				if text, err := step(verb, id); err != nil {
					t.Errorf("%s of container %d: %v: %s", verb, i, err, text)
				}
			}
			testutil.Eventually(t, time.Minute, "the end of container "+id, func() bool {
				text, err := step("state", id)
				return err != nil || strings.Contains(text, `"status": "stopped"`)
			})
			if text, err := step("delete", id); err != nil {
				t.Errorf("delete of container %d: %v: %s", i, err, text)
			}
		})
	}
	wg.Wait()
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + b.id + "-*"); len(left) > 0 {
		t.Errorf("groups left: %v", left)
	}
}

// Package testutil holds what the tests of several packages share: the guard
// of tests that need root, and waiting with a deadline.
package testutil

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// RequireRoot skips the test unless it runs as root. When TARE_TEST_ROOT=1 is
// set a run without root fails instead, so that a suite cannot pass by
// skipping all that matters.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("TARE_TEST_ROOT") == "1" {
		t.Fatal("this run must cover the root tests; run it as root")
	}
	t.Skip("needs root")
}

// Eventually polls cond every few milliseconds and fails the test with what
// when it has not become true within timeout.
func Eventually(t testing.TB, timeout time.Duration, what string, cond func() bool) {
	t.Helper()
	timeout = Patience(timeout)
	deadline := time.Now().Add(timeout)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting after %v: %s", timeout, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Patience is how long to wait where others have d: TARE_TEST_PATIENCE times as
// long, on a machine that is emulated.
func Patience(d time.Duration) time.Duration {
	if n, err := strconv.Atoi(os.Getenv("TARE_TEST_PATIENCE")); err == nil && n > 0 {
		return time.Duration(n) * d
	}
	return d
}

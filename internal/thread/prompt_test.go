package thread

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestPrompt(t *testing.T) {
	Own(func() bool {
		for _, test := range []struct{ before, after int }{{briefSlack, usualSlack}, {1234, 1234}} {
			if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(test.before), 0, 0, 0); err != nil {
				t.Error(err)
			}
			done := Prompt()
			if now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); now != test.after {
				t.Errorf("the slack %d becomes %d, %v", test.before, now, err)
			}
			done()
		}
		return false
	})
}

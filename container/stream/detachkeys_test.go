package stream

import (
	"errors"
	"testing"

	"github.com/tarehq/tare/fault"
)

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string]string{"": "\x10\x11", "a": "a", "ctrl-a,x": "\x01x", "ctrl-[": "\x1b", "ctrl-@": "\x00"} {
		if got, err := DetachKeys(in); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"ctrl-", "ctrl-1", "ab", "a,,b", "CTRL-P", "ctrl-A"} {
		if _, err := DetachKeys(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

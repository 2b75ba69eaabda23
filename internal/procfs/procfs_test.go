package procfs

import (
	"os"
	"slices"
	"testing"
)

func TestRanges(t *testing.T) {
	for text, want := range map[string][][2]int{"": nil, "0": {{0, 0}}, "0-2,7": {{0, 2}, {7, 7}}} {
		if got, err := Ranges(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"x", "1-0", "0-", "-1", ",", "0, 1", "99999"} {
		if got, err := Ranges(bad); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

func TestUnescape(t *testing.T) {
	for text, want := range map[string]string{"/plain": "/plain", `/a\040b\134c\043`: `/a b\c#`, `/x\04`: `/x\04`} {
		if got := Unescape(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestStart(t *testing.T) {
	ticks, state, err := Start(os.Getpid())
	if err != nil || ticks == 0 || state != 'R' && state != 'S' {
		t.Errorf("of this process: %d, %q, %v", ticks, state, err)
	}
	if _, _, err := Start(0); err == nil {
		t.Error("there is a process 0")
	}
}

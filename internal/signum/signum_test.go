package signum

import "testing"

func TestParse(t *testing.T) {
	for text, want := range map[string]int{
		"9": 9, "0": 0, "64": 64, "KILL": 9, "sigterm": 15, "SIGRTMIN": 34, "RTMIN+3": 37, "rtmax-1": 63, "SIGRTMAX": 64,
	} {
		if sig, ok := Parse(text); !ok || int(sig) != want {
			t.Errorf("%s: %d, %v, want %d", text, sig, ok, want)
		}
	}
	for _, text := range []string{"", "65", "-1", "SIG", "NOSUCH", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMIN+x"} {
		if sig, ok := Parse(text); ok {
			t.Errorf("%s: %d", text, sig)
		}
	}
}

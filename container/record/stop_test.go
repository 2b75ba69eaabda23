package record_test

import (
	"testing"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
)

func TestSignals(t *testing.T) {
	for in, want := range map[string]int{"9": 9, "KILL": 9, "SIGKILL": 9, "sigterm": 15, "HUP": 1, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63} {
		if got, err := record.ParseSignal(in); err != nil || int(got) != want {
			t.Errorf("%s: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "0", "65", "-1", "NOSUCH", "RTMIN+99", "RTMINx"} {
		if got, err := record.ParseSignal(bad); err == nil {
			t.Errorf("%q is %d", bad, got)
		}
	}
}

func TestStopSignal(t *testing.T) {
	for asked, want := range map[string]int{"": 15, "HUP": 1} {
		r := record.Record{Spec: record.Spec{Config: &wire.Config{StopSignal: "NOSUCH"}}} // an image's
		if got, err := r.StopSignal(asked); err != nil || int(got) != want {
			t.Errorf("stop by %q in spite of the image's signal: %d, %v; want %d", asked, got, err, want)
		}
	}
}

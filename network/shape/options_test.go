package shape

import (
	"errors"
	"testing"

	"github.com/tarehq/tare/fault"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]uint64{
		"": 0, "0": 0, "8000": 8000, "500kbit": 500_000, "10mbit": 10_000_000, "10 Mbit/s": 10_000_000, "1.5g": 1_500_000_000,
		"1tbit": 1_000_000_000_000, "9k": 9000,
	} {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"x", "mbit", "10mbyte", "10MB", "10mbps", "-1", "1e30", "nan", "inf", "1_0", "10mbit 5"} {
		if got, err := ParseRate(text); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

func TestFromOptions(t *testing.T) {
	l, err := FromOptions(map[string]string{OptionIn: "10mbit", OptionOut: "1gbit", OptionDelay: "0", OptionLoss: "0%", "other": "x"})
	if want := (Limits{In: 10_000_000, Out: 1_000_000_000}); err != nil || l != want {
		t.Errorf("%+v, %v", l, err)
	}
	for key, value := range map[string]string{OptionIn: "fast", OptionOut: "10", OptionDelay: "soon", OptionLoss: "some"} {
		if _, err := FromOptions(map[string]string{key: value}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
}

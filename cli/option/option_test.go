package option

import (
	"testing"
	"time"
)

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "1024": 1024, "1b": 1, "1k": 1024, "1KB": 1024, "512m": 512 << 20, "1.5GiB": 3 << 29, "2 g": 2 << 30,
		".5k": 512, "1t": 1 << 40, "1p": 1 << 50} {
		if got, err := ParseBytes(in); got != want || err != nil {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "m", "-1", "1q", "1kk", "0x10", "1e3x", "+5", "infk", "1 2"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
}

func TestTimestamp(t *testing.T) {
	for in, want := range map[string]string{"": "", "1700000000": "1700000000", "1700000000.5": "1700000000.5",
		"2013-01-02T13:23:37Z": "1357133017.000000000", "2013-01-02T13:23:37.5+01:00": "1357129417.500000000"} {
		if got, err := Timestamp(in, "since"); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	got, err := Timestamp("10m", "since")
	if want := seconds(time.Now().Add(-10 * time.Minute)); err != nil || got > want || len(got) != len(want) {
		t.Error(got, want, err)
	}
	if got, err := Timestamp("tomorrow", "since"); err == nil {
		t.Error(got)
	}
}

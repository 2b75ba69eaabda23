package option

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/spf13/pflag"
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

func TestRates(t *testing.T) {
	flags := func(named bool, args ...string) (*Rates, error) {
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		r := NewRates(f, named)
		return r, f.Parse(args)
	}
	r, err := flags(true, "--net-in-rate", "back=1gbit", "--net-in-rate", "10mbit", "--net-loss", "front=1%")
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Networks(); !slices.Equal(got, []string{"", "back", "front"}) {
		t.Errorf("networks: %q", got)
	}
	const in, loss = "com.tarehq.network.in-rate", "com.tarehq.network.loss"
	for network, want := range map[string]map[string]string{"": {in: "10mbit"}, "back": {in: "1gbit"}, "front": {in: "10mbit", loss: "1%"}, "other": {in: "10mbit"}} {
		if got := r.Options(network); !maps.Equal(got, want) {
			t.Errorf("%q: %v", network, got)
		}
	}
	for _, args := range [][]string{{"--net-in-rate", "back="}, {"--net-delay", ""}} {
		if _, err := flags(true, args...); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	if _, err := flags(false, "--net-in-rate", "back=1gbit"); err == nil {
		t.Error("a name where there is one network")
	}
	if r, err := flags(false); err != nil || r.Options("") != nil || len(r.Networks()) != 0 {
		t.Errorf("nothing said: %v", err)
	}
}

package logbook

import (
	"fmt"
	"testing"

	wire "github.com/moby/moby/api/types/container"
)

// A request gets the daemon's log options with the daemon's driver alone, and
// what is asked for is held to the driver's.
func TestLogChoice(t *testing.T) {
	b := &Book{cfg: Config{Driver: "json-file", Options: map[string]string{"max-size": "1m"}}}
	for _, c := range []struct {
		asked wire.LogConfig
		want  string
	}{
		{wire.LogConfig{}, "{json-file map[max-size:1m]}"},
		{wire.LogConfig{Config: map[string]string{"max-size": "2m", "tag": "x"}}, "{json-file map[max-size:2m tag:x]}"},
		{wire.LogConfig{Type: "local"}, "{local map[]}"},
		{wire.LogConfig{Type: "local", Config: map[string]string{"syslog-address": "x"}}, "unknown log opt 'syslog-address' for log driver local"},
	} {
		got := c.asked
		err := b.Choose(&got)
		if text := fmt.Sprint(got); err == nil && text != c.want || err != nil && err.Error() != c.want {
			t.Errorf("%v: %s %v, want %s", c.asked, text, err, c.want)
		}
	}
}

package option

import (
	"fmt"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
)

// Timestamp turns a point in time into Unix seconds with nanoseconds: Unix
// seconds already, a duration before now, or a date with or without a time and
// a zone (the local one by default). "" stays empty.
func Timestamp(s, name string) (string, error) {
	if s == "" || strings.Trim(s, "0123456789.") == "" {
		return s, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return seconds(time.Now().Add(-d)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			return seconds(t), nil
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return seconds(t), nil
		}
	}
	return "", fault.New(fault.Invalid, "invalid value for %q: failed to parse value as time or duration: %q", name, s)
}

func seconds(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

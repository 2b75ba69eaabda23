package access

import (
	"encoding/json"
	"strconv"
	"time"
)

// line is a line of the log as it grows at the end of others, in the form of slog's handlers: one
// object of JSON, or key=value with quotes where they are needed. It is written
// by hand since it is a good part of what answering for a manifest costs.
type line struct {
	json bool
	text []byte
}

func (l *line) begin(at time.Time) {
	if l.json {
		l.text = append(l.text, `{"time":"`...)
		l.text = at.AppendFormat(l.text, time.RFC3339Nano)
		l.text = append(l.text, `","level":"INFO","msg":"request"`...)
		return
	}
	l.text = append(l.text, "time="...)
	l.text = at.AppendFormat(l.text, "2006-01-02T15:04:05.000Z07:00")
	l.text = append(l.text, " level=INFO msg=request"...)
}

func (l *line) end() []byte {
	if l.json {
		l.text = append(l.text, '}')
	}
	return append(l.text, '\n')
}

func (l *line) key(name string) {
	if l.json {
		l.text = append(append(append(l.text, `,"`...), name...), `":`...)
		return
	}
	l.text = append(append(append(l.text, ' '), name...), '=')
}

func (l *line) int(name string, n int64) {
	l.key(name)
	l.text = strconv.AppendInt(l.text, n, 10)
}

func (l *line) seconds(name string, d time.Duration) {
	l.key(name)
	l.text = strconv.AppendFloat(l.text, d.Seconds(), 'f', 6, 64)
}

// string adds a text, of which what is too long is left out. It comes from
// strangers.
func (l *line) string(name, s string) {
	l.key(name)
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	switch plain := isPlain(s); {
	case plain && l.json:
		l.text = append(append(append(l.text, '"'), s...), '"')
	case plain:
		l.text = append(l.text, s...)
	case l.json:
		quoted, err := json.Marshal(s)
		if err != nil {
			quoted = []byte(`""`)
		}
		l.text = append(l.text, quoted...)
	default:
		l.text = strconv.AppendQuote(l.text, s)
	}
}

// isPlain tells whether a text needs neither quotes nor escapes.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' || c == '=' {
			return false
		}
	}
	return s != ""
}

package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"
)

// maxRecord is the length of a record above which it is taken for garbage:
// a line of maxLine bytes takes six times that when all of it is escaped, and
// other programs write longer ones.
const maxRecord = 4 << 20

// decoder splits what it is fed into records.
type decoder struct {
	each    func(Entry) error
	at      int64  // where in the file the record begins that comes next
	rest    []byte // an incomplete record
	skip    bool   // what was too long goes on to the next newline
	scratch []byte // of the decoded line
}

// feed passes on each record that p completes.
func (d *decoder) feed(p []byte) error {
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		line := p[:i]
		p = p[i+1:]
		if len(d.rest) > 0 {
			d.rest = append(d.rest, line...)
			line = d.rest
		}
		skip, begin := d.skip, d.at
		d.rest, d.skip, d.at = d.rest[:0], false, d.at+int64(len(line))+1
		if skip {
			continue
		}
		if err := d.record(line); err != nil {
			if err == errFound {
				d.at = begin
			}
			return err
		}
	}
	if d.skip || len(d.rest)+len(p) > maxRecord {
		d.at += int64(len(d.rest) + len(p))
		d.rest, d.skip = d.rest[:0], true
		return nil
	}
	d.rest = append(d.rest, p...)
	return nil
}

// errFound ends a search at the record that was passed on last; at is where
// that one begins.
var errFound = errors.New("found")

func (d *decoder) record(line []byte) error {
	var e Entry
	var ok bool
	if e, d.scratch, ok = decodeFast(line, d.scratch[:0]); !ok {
		if e, ok = decodeAny(line); !ok {
			return nil
		}
	}
	return d.each(e)
}

// decodeFast decodes a record in the exact form that Writer gives it.
func decodeFast(line, scratch []byte) (e Entry, used []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"log":"`))
	if !ok {
		return e, scratch, false
	}
	if scratch, rest, ok = unescape(scratch, rest); !ok {
		return e, scratch, false
	}
	switch {
	case bytes.HasPrefix(rest, []byte(`,"stream":"stdout",`)):
		e.Stream = "stdout"
	case bytes.HasPrefix(rest, []byte(`,"stream":"stderr",`)):
		e.Stream = "stderr"
	default:
		return e, scratch, false
	}
	rest, ok = bytes.CutPrefix(rest[len(`,"stream":"stdout",`):], []byte(`"time":"`))
	if !ok {
		return e, scratch, false
	}
	stamp, ok := bytes.CutSuffix(rest, []byte(`"}`))
	if !ok {
		return e, scratch, false
	}
	var err error
	if e.Time, err = time.Parse(time.RFC3339Nano, string(stamp)); err != nil {
		return e, scratch, false
	}
	e.Line = scratch
	return e, scratch, true
}

// decodeAny decodes a record as any JSON writer may have formed it, with
// attributes for instance.
func decodeAny(line []byte) (Entry, bool) {
	var j struct {
		Log    string          `json:"log"`
		Stream string          `json:"stream"`
		Attrs  json.RawMessage `json:"attrs"`
		Time   time.Time       `json:"time"`
	}
	if json.Unmarshal(line, &j) != nil || (j.Stream != "stdout" && j.Stream != "stderr") {
		return Entry{}, false
	}
	return Entry{Stream: j.Stream, Time: j.Time, Line: []byte(j.Log), Attrs: j.Attrs}, true
}

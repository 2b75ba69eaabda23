package logs

import (
	"errors"
	"os"
	"time"
)

// Handover is what a Writer passes on to the one that takes its place in another
// process, or in another life of this one, beside the open file.
type Handover struct {
	MaxSize, Size, Limit int64
	Stored               time.Time
	Parts                [2][]byte
	Begun                [2]time.Time
	Torn                 bool
	Dropped              int64
	Reason               string
}

// Handover tells of the writer and gives its file. Nothing is written by it from
// then on.
func (w *Writer) Handover() (*os.File, Handover) {
	h := Handover{MaxSize: w.o.MaxSize, Size: w.size, Limit: w.limit, Stored: w.stored, Torn: w.torn, Dropped: w.dropped}
	for i, p := range w.parts {
		h.Parts[i], h.Begun[i] = p.buf, p.begun
	}
	if w.err != nil {
		h.Reason = w.err.Error()
	}
	return w.f, h
}

// TakeOver goes on where another writer was, with its options but for MaxSize.
func TakeOver(path string, f *os.File, o Options, h Handover) *Writer {
	o.MaxSize = h.MaxSize
	w := &Writer{path: path, f: f, o: o, size: h.Size, limit: h.Limit, stored: h.Stored, torn: h.Torn, dropped: h.Dropped}
	for i := range w.parts {
		w.parts[i] = partial{h.Parts[i], h.Begun[i]}
	}
	if h.Reason != "" {
		w.err = errors.New(h.Reason)
	}
	return w
}

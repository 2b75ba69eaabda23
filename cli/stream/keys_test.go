package stream

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseKeys(t *testing.T) {
	for in, want := range map[string][]byte{"": {16, 17}, "ctrl-a,b": {1, 'b'}, "ctrl-@": {0}, "ctrl-[,ctrl-_": {27, 31}, "DEL": {127}, "A,z": {'A', 'z'}} {
		if got, err := ParseKeys(in); !bytes.Equal(got, want) || err != nil {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"foo", "ctrl-", "ctrl-1", "a,,b"} {
		if got, err := ParseKeys(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestWatcher(t *testing.T) {
	for in, want := range map[string]bool{"": false, "x\x10\x11": true, "\x10x\x11": false, "\x10\x10\x11": true, "\x10\x11x": true, "\x11\x10": false} {
		w := &watcher{r: iotest.OneByteReader(strings.NewReader(in)), keys: []byte{16, 17}, seen: make(chan struct{})}
		if out, _ := io.ReadAll(w); string(out) != in || w.typed.Load() != want {
			t.Errorf("%q: passed %q, typed %v", in, out, w.typed.Load())
		}
	}
}

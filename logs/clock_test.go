package logs

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// What the clock does makes no record unfindable: set back by an hour, records
// of before and after overlap in time.
func TestClockSetBack(t *testing.T) {
	for _, o := range []Options{{}, {MaxSize: 60000, MaxFiles: 9}} {
		path := filepath.Join(t.TempDir(), "log.json")
		w, err := NewWriter(path, o)
		if err != nil {
			t.Fatal(err)
		}
		const n = 3000
		for i := range n {
			w.write(Stdout, fmt.Appendf(nil, "before %d\n", i), testTime.Add(time.Duration(i)*time.Second))
		}
		if err := w.Close(); err != nil { // a step between two runs is one, too
			t.Fatal(err)
		}
		if w, err = NewWriter(path, o); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			w.write(Stdout, fmt.Appendf(nil, "after %d\n", i), testTime.Add(time.Duration(i-3600)*time.Second))
		}
		w.Close()
		if got := lines(t, path, ReadOptions{Tail: -1, Since: testTime.Add((n - 1) * time.Second)}); len(got) != 1 || got[0] != "before 2999" {
			t.Errorf("since: %d lines", len(got))
		}
		got := lines(t, path, ReadOptions{Tail: -1, Until: testTime.Add(-3600 * time.Second)})
		if len(got) != 1 || got[0] != "after 0" {
			t.Errorf("until: %d lines", len(got))
		}
		if err := Clear(path); err != nil {
			t.Fatal(err)
		}
		same(t, lines(t, path, ReadOptions{Tail: -1, Since: testTime}))
	}
}

// A line that takes longer than the clock may be set back does not make the
// times fall: its last part comes behind what the other stream wrote meanwhile.
func TestSlowLineKeepsOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.json")
	w, err := NewWriter(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.write(Stdout, make([]byte, maxLine), testTime)
	w.write(Stderr, []byte("meanwhile\n"), testTime.Add(10*time.Minute))
	w.write(Stdout, []byte("end\n"), testTime.Add(11*time.Minute))
	w.Close()
	var last time.Time
	err = Read(t.Context(), path, ReadOptions{Tail: -1}, func(e Entry) error {
		if e.Time.Before(last) {
			t.Errorf("%v after %v", e.Time, last)
		}
		last = e.Time
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

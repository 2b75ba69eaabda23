package dir

import (
	"os"
	"testing"
	"time"

	"github.com/tarehq/tare/registry/storage/storagetest"
)

// An upload that was begun under a clock far ahead is as old as the moment at
// which that is noticed: it is not kept for ever, and not thrown away at once.
func TestClockSetBack(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	u := create(t, s, "r")
	appendAll(t, u, storagetest.Bytes(1, 1000))
	ok(t, u.Close())
	state := s.uploadPath(u.ID(), stateSuffix)
	collected := func(written time.Time) int {
		t.Helper()
		ok(t, os.Chtimes(state, written, written))
		c, err := s.Collect(t.Context(), time.Hour)
		ok(t, err)
		return int(c.Uploads)
	}
	if n := collected(time.Now().AddDate(1, 0, 0)); n != 0 {
		t.Errorf("%d uploads of next year are collected", n)
	}
	if st, err := os.Stat(state); err != nil || st.ModTime().After(time.Now().Add(time.Minute)) {
		t.Errorf("it is of %v still, %v", st, err)
	}
	if n := collected(time.Now().Add(-2 * time.Hour)); n != 1 {
		t.Errorf("%d uploads of two hours ago are collected", n)
	}
}

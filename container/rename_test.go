package container

import (
	"errors"
	"os"
	"testing"

	"github.com/tarehq/tare/fault"
)

// A new name is in the record before the old one is free, and what happened
// meanwhile stays.
func TestAmendedRecord(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	addRecord(t, s, "aa11", "one", false)
	if err := s.reserve("two", "aa11"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.amend("aa11", func(c *Spec) error {
		c.Name = "two"
		_, err := s.change("aa11", func(p *Progress) error { p.State, p.Pid = Running, 7; return nil })
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.find("two"); err != nil || r.Pid != 7 || r.ID != "aa11" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := s.find("one"); !errors.Is(err, fault.NotFound) {
		t.Errorf("the old name: %v", err)
	}
	if err := s.reserve("one", "aa22"); err != nil {
		t.Error(err)
	}
	if r, err := testStore(t, dir).find("two"); err != nil || r.Name != "two" {
		t.Errorf("opened anew: %+v, %v", r, err)
	}

	// One that cannot be written changes nothing.
	if err := s.reserve("three", "aa11"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.path("aa11")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.amend("aa11", func(c *Spec) error { c.Name = "three"; return nil }); err == nil {
		t.Fatal("a record without a directory was written")
	}
	s.unreserve("three", "aa11")
	if r, err := s.find("two"); err != nil || r.Name != "two" {
		t.Errorf("%+v, %v", r, err)
	}
	s.remove("aa11")
	if len(s.names) != 1 { // one, of aa22
		t.Errorf("names: %v", s.names)
	}
}

package record_test

import (
	"errors"
	"math"
	"os"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/aside"
)

func TestStoreSurvivesReopen(t *testing.T) {
	dir := t.TempDir()
	s := recordtest.Store(t, dir)
	recordtest.Add(t, s, "aa11", "one", false)
	recordtest.Add(t, s, "aa22", "two", false)
	if _, err := s.Update("aa11", func(p *record.Progress) error { p.State, p.Pid = record.Running, 7; return nil }); err != nil {
		t.Fatal(err)
	}
	// What a crash leaves: a create that was never acknowledged, a removal
	// that was not finished, a state that power loss tore.
	for _, d := range []string{"bb00", "cc00" + aside.Suffix, "dd00"} {
		if err := os.Mkdir(s.Path(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.Path("dd00", "record.json"), make([]byte, 100), 0o600); err != nil { // as ext4 leaves it
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path("aa22", "state.json"), []byte(`{"State":"run`), 0o600); err != nil {
		t.Fatal(err)
	}
	s = recordtest.Store(t, dir)
	one, err := s.Find("one")
	if err != nil || one.State != record.Running || one.Pid != 7 {
		t.Errorf("one: %+v, %v", one.Progress, err)
	}
	two, err := s.Find("/two")
	if err != nil || two.State != record.Running { // it ran; its policy decides what follows
		t.Errorf("two: %+v, %v", two.Progress, err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// What has happened is known though it cannot be written.
func TestNote(t *testing.T) {
	s := recordtest.Store(t, t.TempDir())
	recordtest.Add(t, s, "aa11", "one", false)
	if err := os.MkdirAll(s.Path("aa11", "state.json", "in", "the", "way"), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(p *record.Progress) error { p.State = record.Running; return nil }
	if _, err := s.Update("aa11", run); err == nil {
		t.Error("update hides that it could not write")
	}
	if r, err := s.Note("aa11", func(p *record.Progress) error { p.State = record.Exited; return nil }); err != nil || r.State != record.Exited {
		t.Errorf("note: %v, %v", r.State, err)
	}
	if r, err := s.Find("aa11"); err != nil || r.State != record.Exited {
		t.Errorf("known is %v, %v", r.State, err)
	}
	if _, err := s.Note("aa11", func(p *record.Progress) error { p.State = record.Created; return nil }); err == nil {
		t.Error("note allows a change that is none")
	}
}

func TestFind(t *testing.T) {
	s := recordtest.Store(t, t.TempDir())
	recordtest.Add(t, s, "aa11", "one", true)
	recordtest.Add(t, s, "aa22", "aa", true) // a name that is a prefix of IDs
	for query, want := range map[string]string{"one": "aa11", "/one": "aa11", "aa1": "aa11", "aa": "aa22", "aa22": "aa22"} {
		if r, err := s.Find(query); err != nil || r.ID != want {
			t.Errorf("%s: %s, %v; want %s", query, r.ID, err, want)
		}
	}
	if _, err := s.Find("a"); !errors.Is(err, fault.Invalid) {
		t.Errorf("an ambiguous prefix: %v", err)
	}
	if _, err := s.Find("zz"); !errors.Is(err, fault.NotFound) {
		t.Errorf("an unknown name: %v", err)
	}
	if err := s.Reserve("one", "zz"); !errors.Is(err, fault.Conflict) {
		t.Errorf("a taken name: %v", err)
	}
	s.Remove("aa11")
	if err := s.Reserve("one", "zz"); err != nil {
		t.Errorf("the name of a removed container: %v", err)
	}
}

func TestUpdateRefusesWhatTheTableHasNot(t *testing.T) {
	s := recordtest.Store(t, t.TempDir())
	recordtest.Add(t, s, "aa11", "one", false)
	if _, err := s.Update("aa11", func(p *record.Progress) error { p.State = record.Restarting; return nil }); err == nil {
		t.Error("a created container is restarting")
	}
	if r, _ := s.Find("one"); r.State != record.Created {
		t.Errorf("a refused change was kept: %s", r.State)
	}
}

func TestLongestStopTime(t *testing.T) {
	endless, three := math.MaxInt, 3
	r := record.Record{Spec: record.Spec{Config: &wire.Config{StopTimeout: &endless}}}
	if d := r.StopTimeout(nil); d < 200*365*24*time.Hour {
		t.Error(d)
	}
	if d := r.StopTimeout(&three); d != 3*time.Second {
		t.Error(d)
	}
}

// A new name is in the record before the old one is free, and what happened
// meanwhile stays.
func TestAmendedRecord(t *testing.T) {
	dir := t.TempDir()
	s := recordtest.Store(t, dir)
	recordtest.Add(t, s, "aa11", "one", false)
	if err := s.Reserve("two", "aa11"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Amend("aa11", func(c *record.Spec) error {
		c.Name = "two"
		_, err := s.Change("aa11", func(p *record.Progress) error { p.State, p.Pid = record.Running, 7; return nil })
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Find("two"); err != nil || r.Pid != 7 || r.ID != "aa11" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := s.Find("one"); !errors.Is(err, fault.NotFound) {
		t.Errorf("the old name: %v", err)
	}
	if err := s.Reserve("one", "aa22"); err != nil {
		t.Error(err)
	}
	if r, err := recordtest.Store(t, dir).Find("two"); err != nil || r.Name != "two" {
		t.Errorf("opened anew: %+v, %v", r, err)
	}

	// One that cannot be written changes nothing.
	if err := s.Reserve("three", "aa11"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.Path("aa11")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Amend("aa11", func(c *record.Spec) error { c.Name = "three"; return nil }); err == nil {
		t.Fatal("a record without a directory was written")
	}
	s.Unreserve("three", "aa11")
	if r, err := s.Find("two"); err != nil || r.Name != "two" {
		t.Errorf("%+v, %v", r, err)
	}
	s.Remove("aa11")
	if err := s.Reserve("two", "aa33"); err != nil {
		t.Errorf("the name of a removed one: %v", err)
	}
	if err := s.Reserve("one", "aa33"); !errors.Is(err, fault.Conflict) {
		t.Errorf("the name of another: %v", err)
	}
}

func TestDamagedRecordIsRemembered(t *testing.T) {
	dir := t.TempDir()
	recordtest.Add(t, recordtest.Store(t, dir), "x", "name", false)
	if err := os.WriteFile(dir+"/x/record.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := recordtest.Store(t, dir)
	if _, err := s.Find("x"); !errors.Is(err, fault.NotFound) || !s.Damaged("x") {
		t.Errorf("damaged %v, %v", s.Damaged("x"), err)
	}
}
